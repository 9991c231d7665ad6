"""Options of the command `export` with defaults and help texts, and the typed request parsed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from whichlora.caller import given_path
from whichlora.command_line import parse_boolean
from whichlora.config.options import AUTO, PRECISIONS
from whichlora.errors import OptionError, check_choice, check_output_folder, check_text

FORMS = ("adapter", "merged")
NO_REPOSITORY = "none"
OPTIONS = {
    "run_id": (None, "MLflow id, or its first digits, of a finished run or trial that has an adapter."),
    "form": (
        "adapter",
        "adapter: the adapter with model card and tokenizer; merged: the base model with the adapter merged into its "
        "weights, which transformers loads without PEFT.",
    ),
    "output": ("export", "Folder to write, new or empty."),
    "base": (AUTO, "Folder or hub id of the run's base model, if it was moved."),
    "precision": (
        PRECISIONS[0],
        "Weights of a merged model: fp32, or bf16, which rounds away part of what was trained.",
    ),
    "push_to": (
        NO_REPOSITORY,
        "Repository on the Hugging Face hub, as organisation/name; a new one is private. The token is that of HF_TOKEN "
        "or of `hf auth login`.",
    ),
    "dry_run": ("false", "true: list what push_to would upload, and neither upload it nor keep it in output."),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """The parsed options; None stands for `auto` and `none`."""

    run_id: str
    form: str
    output: Path
    base: str | None
    precision: str
    push_to: str | None
    dry_run: bool


def parse(texts: Mapping[str, str]) -> Request:
    """Parse the options, with all checks that need no run.

    Raises:
        OptionError: a value is not allowed.
    """
    for option, text in texts.items():
        check_text(option, text)
    form = check_choice("form", texts["form"], FORMS)
    precision = check_choice("precision", texts["precision"], PRECISIONS)
    if form != "merged" and precision != OPTIONS["precision"][0]:
        raise OptionError("precision", precision, "is about merged models; remove the option or set form=merged")
    push_to = None if texts["push_to"] == NO_REPOSITORY else texts["push_to"]
    dry_run = parse_boolean("dry_run", texts["dry_run"])
    if dry_run and push_to is None:
        raise OptionError("dry_run", texts["dry_run"], "is about uploads; set push_to or remove the option")
    output = given_path(texts["output"]).absolute()
    check_output_folder("output", texts["output"], output)
    if output.is_dir() and (present := sorted(path.name for path in output.iterdir())):
        raise OptionError("output", texts["output"], f"already has files ({present[0]}); choose a new or empty folder")
    return Request(
        run_id=texts["run_id"],
        form=form,
        output=output,
        base=None if texts["base"] == AUTO else texts["base"],
        precision=precision,
        push_to=push_to,
        dry_run=dry_run,
    )
