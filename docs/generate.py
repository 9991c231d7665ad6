"""Writes what the reference says of the code between the marks of its pages: `python -m docs.generate`."""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import yaml

from whichlora.__main__ import COMMANDS
from whichlora.command_line import Command
from whichlora.data.tasks import NAMES, task_class
from whichlora.data.tasks.declared import DeclaredTask
from whichlora.models.loading import locate, read_shape
from whichlora.variants import CATALOGUE
from whichlora.variants.command import describe

FOLDER = Path(__file__).parent / "reference"
ROOT = FOLDER.parents[1]
START, END = "<!-- made by `python -m docs.generate` -->", "<!-- end -->"
OTHER_COMMANDS = {"python -m tuning.learning_rates": "tuning.learning_rates"}
"""Commands with options that are no subcommand of `whichlora`."""
PACKAGED_SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
"""Shape of the packaged default model (SmolLM2-135M), so that the page can be made without it."""
LICENCES = {
    "atlas-nli": "Apache-2.0; names from CLDR (Unicode License V3)",
    "atlas-qa": "Apache-2.0; names from CLDR (Unicode License V3)",
    "xnli": "CC BY-NC 4.0",
    "tydiqa": "Apache-2.0",
    "align-words": "names from CLDR (Unicode License V3)",
}
"""Licences of the tasks that are written in Python; the others declare theirs."""


def commands() -> str:
    """Return the options of every command, from the declarations of their command lines."""
    points = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    parts = []
    for name, (module, _) in COMMANDS.items():
        entry = {"run": "main"}.get(name, name)
        calls = [f"`python -m {module.removesuffix('.command')}`"] + [f"`mlflow run . -e {entry}`"] * (entry in points)
        note = f"Also {' and '.join(calls)}.\n\n"
        parts += _command(importlib.import_module(module).COMMAND, f"whichlora {name}", note)
    for title, module in OTHER_COMMANDS.items():
        parts += _command(importlib.import_module(module).COMMAND, title, "")
    return "\n\n".join(parts)


def _command(command: click.Command, title: str, note: str) -> Iterator[str]:
    """Yield the section of a command, or those of the subcommands of a group."""
    if isinstance(command, click.Group):
        yield f"## {title}\n\n{note}{_cell(command.help or '')}"
        for name, sub in command.commands.items():
            yield from (f"#{text}" if text.startswith("##") else text for text in _command(sub, f"{title} {name}", ""))
        return
    assert isinstance(command, Command)
    yield f"## {title}\n\n{note}{_cell(command.help or '')}"
    if command.examples:
        yield "```\n" + "\n".join(command.examples) + "\n```"
    arguments = [p.make_metavar(click.Context(command)) for p in command.params if isinstance(p, click.Argument)]
    if arguments:
        yield "Arguments: " + ", ".join(f"`{text}`" for text in arguments) + "."
    options = {p.name: p for p in command.params if isinstance(p, click.Option)}
    for group, names in command.groups.items():
        if names:
            yield "\n".join([f"| {group} | default | |", "|---|---|---|", *(_option(options[name]) for name in names)])


def _option(option: click.Option) -> str:
    default = "required" if option.required else f"`{option.default}`"
    return f"| `{option.name}` | {default} | {_cell(option.help or '')} |"


def variants() -> str:
    """Return what the catalogue declares of each variant, and its parameters on the packaged model."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(PACKAGED_SHAPE))
        shape = read_shape(locate(folder))
    rows = [describe(variant, shape, None) for variant in CATALOGUE.values()]
    lines = ["| variant | method | paper | parameters at the matched rank | supports |", "|---|---|---|---|---|"]
    for row in rows:
        name, count = row["variant"], row["parameters"].partition(" at rank")[0]
        cells = (f"[`{name}`](#{name})", row["title"], _cell(row["paper"]), count, row["supports"])
        lines.append(f"| {' | '.join(cells)} |")
    shown = ("recommended", "source", "matched", "own settings", "rank")
    for row in rows:
        lines += ["", f"### {row['variant']}", ""]
        lines += [f"- **{name}**: {_cell(row[name])}" for name in shown if row[name] != "-"] or ["It has no settings."]
    return "\n".join(lines)


def tasks() -> str:
    """Return the tasks of the package with languages, default sizes, licences and known faults."""
    lines = ["| task | kind of answer | languages | training, validation items | licence |", "|---|---|---|---|---|"]
    details = []
    for name in NAMES:
        task = task_class(name)
        declared = task.declaration if issubclass(task, DeclaredTask) else None
        kind = declared.kind if declared else _python_kind(name)
        count = f"{len(task.languages)}{', parallel' if task.parallel else ''}"
        licence = (declared.about.licence if declared else LICENCES[name]) or "not stated"
        size = ", ".join(f"{number:,}" for number in (task.sizes.train, task.sizes.validation) if number is not None)
        lines.append(f"| [`{name}`](#{name}) | {kind} | {count} | {size} | {_cell(licence)} |")
        details += ["", f"### {name}", ""]
        if declared:
            about = declared.about
            facts = {"data": about.title, "citation": about.citation, "source": about.source, "size": about.size}
            details += [f"- **{key}**: {_cell(text)}" for key, text in facts.items() if text]
            details += [f"- **known fault**: {_cell(text)}" for text in about.faults]
        else:
            details += [f"- **data**: {_cell(_first_sentence(task.__doc__ or ''))}"]
        details += [f"- **languages**: {', '.join(task.languages)}", f"- **source language**: {task.source or 'none'}"]
    return "\n".join([*lines, *details])


def _python_kind(name: str) -> str:
    return {"align-words": "pairs of words", "atlas-qa": "span", "tydiqa": "span"}.get(name, "choice")


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def _cell(text: str) -> str:
    """Return a text on one line in which Markdown has no special meaning."""
    return re.sub(r"([|<*\[\]])", r"\\\1", " ".join(text.split()))


PAGES: dict[str, Callable[[], str]] = {"commands.md": commands, "variants.md": variants, "tasks.md": tasks}


def page(name: str) -> str:
    """Return a page of the reference as the code says it should be."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{PAGES[name]()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for written in PAGES:
        (FOLDER / written).write_text(page(written), encoding="utf-8")
