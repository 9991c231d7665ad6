"""Tasks declared in YAML files: a user's own, and those of the catalogue.

`declaration`, `sections` and `layouts` are the schema. `reading` finds the rows of a split (`tables` reads files, `hub`
datasets of the hub), `conversion` makes items of them (with `columns`, `labels`, `spans` and `conversations`), and
`splits` aligns and counts them. `templates` renders prompts and choices, and `task` is the task that results.
"""

from __future__ import annotations

import functools
from importlib.resources import as_file
from pathlib import Path

from whichlora.caller import given_path
from whichlora.data.chat import NONE, read_template
from whichlora.data.tasks.catalogue import FOLDER
from whichlora.data.tasks.declared.declaration import NOT_IN_PROMPT, Declaration
from whichlora.data.tasks.declared.task import DeclaredTask, declare
from whichlora.data.tasks.declared.templates import VARIABLES, check_template
from whichlora.errors import did_you_mean
from whichlora.yaml_files import Document, Path_, read_document


@functools.cache
def of_catalogue(name: str) -> type[DeclaredTask]:
    """Return the class of a task of the catalogue."""
    with as_file(FOLDER / f"{name}.yaml") as path:
        return declare(*_read("task", path), None)


def from_file(file: str, *, option: str = "task") -> type[DeclaredTask]:
    """Return the class of the task that a user's file declares; the same for the same content of the file.

    Raises:
        OptionError: the file cannot be read, or declares no task; the message names the line.
    """
    path = given_path(file)
    return _class_of(*_read(option, path), path.absolute().parent)


def from_text(text: str, *, name: str) -> type[DeclaredTask]:
    """Return the class of a task from the text of its declaration alone: its data and chat template cannot be read.

    Args:
        name: what the text is, for error messages.

    Raises:
        OptionError: the text declares no task; the message names the line.
    """
    document = read_document("task", name, scalar_keys=True, text=text)
    return declare(_parsed(document), text, None)


def _read(option: str, path: Path) -> tuple[Declaration, str]:
    """Return the declaration in a file, and the text of the file."""
    document = read_document(option, path, scalar_keys=True)
    declaration = _parsed(document)
    if declaration.chat_template not in ("auto", NONE):
        try:
            read_template(path.parent / declaration.chat_template)
        except ValueError as error:
            document.fail(("chat_template",), f"chat_template {declaration.chat_template} {error}")
    return declaration, document.text


def _parsed(document: Document) -> Declaration:
    """Return the declaration in a document, after a check of its templates."""
    declaration = document.parse(Declaration)
    prompt = declaration.prompt
    prompts: dict[Path_, str] = {("prompt",): prompt} if isinstance(prompt, str) else {}
    if isinstance(prompt, dict):
        prompts = {("prompt", code): text for code, text in prompt.items()}
    fields = [name for name in declaration.fields if name not in NOT_IN_PROMPT]
    choices: dict[Path_, str] = {("choices", value): text for value, text in (declaration.choices or {}).items()}
    used: dict[Path_, set[str]] = {}
    for place, text in (prompts | choices).items():
        try:
            used[place] = check_template(text, fields, VARIABLES if place in prompts else ("language",))
        except ValueError as error:
            document.fail(place, f"{place[0]} {error}")
    allowed = sorted(set().union(*(used[place] for place in prompts)).difference(*(used[place] for place in choices)))
    for n, name in enumerate(declaration.control_without):
        if name not in allowed:
            listed = f"allowed are the fields of the prompt that are in no choice: {', '.join(allowed) or 'none'}"
            document.fail(("control_without", n), f"control_without has {name}; {listed}{did_you_mean(name, allowed)}")
    return declaration


_CLASSES: dict[tuple[str, Path], type[DeclaredTask]] = {}


def _class_of(declaration: Declaration, text: str, folder: Path) -> type[DeclaredTask]:
    """Return one class for equal declarations, since items are cached by task."""
    return _CLASSES.setdefault((declaration.model_dump_json(), folder), declare(declaration, text, folder))


__all__ = ["DeclaredTask", "from_file", "from_text", "of_catalogue"]
