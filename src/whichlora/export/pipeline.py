"""Carries out an export: the files are complete before they get their name."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

import psutil
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from whichlora.announcements import announce
from whichlora.cards.companions import CARD, write_card, write_tokenizer
from whichlora.cards.facts import read_facts
from whichlora.cards.model_card import Form, model_card
from whichlora.errors import OptionError, printable
from whichlora.export.hub import files_of
from whichlora.export.options import Request
from whichlora.models.folders.verified import sync
from whichlora.models.licence_files import copy_documents, documents_in, licence_of_card
from whichlora.models.loading import ModelSource, load_tokenizer
from whichlora.models.notices import NOTICE, SENTENCES
from whichlora.models.published import published, write_notice
from whichlora.serving import saved
from whichlora.serving.base_model import find_base
from whichlora.serving.saved import SavedBase
from whichlora.tracking.trained import adapter_files, finished_run
from whichlora.training.adapter import ADAPTER_CONFIG, name_base
from whichlora.variants import get_variant

_TOKENIZER = "tokenizer_config.json"


def export(request: Request, client: MlflowClient) -> str:
    """Write the folder that a request asks for, and return a summary for users, with a list of what is uploaded.

    A dry run writes the same files, and removes them.

    Raises:
        OptionError: the run has no adapter that can be exported so, or its base model is not found.
        ProofError: a merged model does not predict what the adapter predicts.
    """
    run = finished_run(client, request.run_id)
    with tempfile.TemporaryDirectory() as scratch:
        trained = adapter_files(client, run, Path(scratch))
        whole = not (trained / ADAPTER_CONFIG).is_file()
        if whole and request.form == "adapter":
            raise OptionError("form", "adapter", "the run has no adapter, but a whole model; use form=merged")
        try:
            with _staged(request.output, keep=not request.dry_run) as folder:
                if request.form == "merged" and not whole:
                    note = _write_merged(trained, run, request, folder)
                else:
                    note = _write_trained(trained, run, request, folder, form="model" if whole else "adapter")
                summary = printable(f"{request.output}: {note}")
                if request.push_to is not None:
                    summary += f"\n{files_of(folder, request.push_to, uploaded=not request.dry_run)}"
        except OSError as error:
            raise OptionError("output", request.output, f"cannot be written: {error.strerror or error}") from error
    return f"Not written (dry_run=true): {summary}" if request.dry_run else summary


def _write_trained(trained: Path, run: Run, request: Request, folder: Path, *, form: Form) -> str:
    """Write the adapter, or the whole model, that the run has trained.

    What those of trials and of earlier versions lack beside the weights is added.
    """
    shutil.copytree(trained, folder, dirs_exist_ok=True)
    complete = (folder / _TOKENIZER).is_file() and (folder / CARD).is_file() and _has_notice(folder)
    moved = form == "adapter" and request.base is not None
    if moved or not complete:
        source = _base_of(run, trained, request.base)
        if form == "adapter":
            name_base(folder, source)
        _write_companions(folder, run, source, form=form)
    _hide_places(folder)
    what = "adapter" if form == "adapter" else "the whole model that the run has trained"
    return f"{what}, with its model card and tokenizer"


def _has_notice(folder: Path) -> bool:
    """Return whether a folder has the notice that the licence on its card demands, which earlier versions left out."""
    return (folder / NOTICE).is_file() or licence_of_card(folder / CARD) not in SENTENCES


def _write_merged(trained: Path, run: Run, request: Request, folder: Path) -> str:
    from whichlora.export.merging import check_mergeable, merge  # torch and PEFT

    variant = get_variant(run.data.params["variant"])  # that of another package tells PEFT of its method
    if not variant.mergeable:
        raise OptionError("form", "merged", f"no weight can hold an adapter of {variant.name}; use form=adapter")
    check_mergeable(trained)
    source = _base_of(run, trained, request.base)
    announce(f"Merging the adapter into {source.name}, and comparing the predictions.")
    agreement = merge(source, trained, folder, precision=request.precision)
    copy_documents(documents_in(trained), folder)  # those of the base model may not be where it is now
    _write_companions(folder, run, source, form="merged")
    note = f"merged model in {request.precision}; {agreement}"
    if run.data.params.get("quantization") == "nf4":
        note += ". The run trained on weights in 4 bits, and these are in full precision: its predictions differ"
    return note


def _write_companions(folder: Path, run: Run, source: ModelSource, *, form: Form) -> None:
    predicts = (folder / saved.FILE_NAME).is_file()
    chat = saved.read(folder).chat_template if predicts else None
    write_tokenizer(folder, load_tokenizer(source), chat)
    base = published(source)
    write_card(folder, model_card(read_facts(run), base, form=form, predicts=predicts))
    write_notice(folder, base, form)


def _hide_places(folder: Path) -> None:
    """Keep from the stored reference to a base model in a folder where that was on this machine."""
    if (folder / saved.FILE_NAME).is_file():
        stored = saved.read(folder)
        base = stored.base
        if base.folder is not None:
            names = {"folder": Path(base.folder).name, "name": PurePath(base.name).name}
            stored.model_copy(update={"base": base.model_copy(update=names)}).write(folder)


def _base_of(run: Run, trained: Path, given: str | None) -> ModelSource:
    """Return the base model of a run.

    Raises:
        OptionError: it is not found, or `given` is another model.
    """
    if (trained / saved.FILE_NAME).is_file():
        return find_base(saved.read(trained).base, given)
    params = run.data.params
    name, digest = params["model"], params["model_digest"]
    commit = digest.removeprefix(f"{name}@") if digest.startswith(f"{name}@") else None
    return find_base(SavedBase(name=name, digest=digest, revision=commit, folder=name), given)


@contextmanager
def _staged(output: Path, *, keep: bool) -> Iterator[Path]:
    """Yield a new folder beside `output`; at the end of the block it gets that name if `keep`, and else is removed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    here = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
    for leftover in output.parent.glob(f".{glob.escape(output.name)}.{here}-*.exporting"):  # of killed exports
        if not psutil.pid_exists(int(leftover.name.split("-")[-1].split(".")[0])):
            shutil.rmtree(leftover, ignore_errors=True)
    stage = output.parent / f".{output.name}.{here}-{os.getpid()}.exporting"
    stage.mkdir()
    try:
        yield stage
        if keep:
            sync(stage)
            stage.replace(output)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
