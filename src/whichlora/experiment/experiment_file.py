"""Reads and checks an experiment's YAML file, with the file that it extends; `grid` documents the keys."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import AfterValidator, BeforeValidator, create_model

from whichlora.caller import given_path
from whichlora.command_line import BOOLEANS
from whichlora.config.options import CHOICES, RUN_OPTIONS, parse_option
from whichlora.errors import OptionError, check_name, did_you_mean, is_file, is_folder
from whichlora.experiment.moved_files import moved_to
from whichlora.yaml_files import Document, Path_, Section, read_document

_KEYS = ("extends", "name", "about", "defaults", "arms")
ARM_KEYS = ("source", "options")
"""Keys of an arm that are not options of `run`."""


def _texts(option: str, content: Any) -> list[str]:
    """Return the values of an option as on the command line; a single value stands for a list of one."""
    values = content if isinstance(content, list) else [content]
    if not values:
        raise OptionError(option, "[]", f"has no value for {option}")
    for value in values:
        boolean = isinstance(value, bool) and CHOICES.get(option) != BOOLEANS
        if boolean or not isinstance(value, str | int | float):
            raise ValueError("must be a text, a number or a list of them")
        if isinstance(parse_option(option, str(value)), str) and isinstance(value, float):  # 1.10 would become 1.1
            raise ValueError("must be text; put it in quotes")
    return [str(value) for value in values]


class _Options(Section):
    command: ClassVar[str] = "run"


_FIELDS: dict[str, Any] = {
    name: (Annotated[list[str], BeforeValidator(partial(_texts, name))], None) for name in RUN_OPTIONS
}
_Defaults: type[Section] = create_model("_Defaults", __base__=_Options, **_FIELDS)
_Arm: type[Section] = create_model("_Arm", __base__=_Options, source=(str, ""), options=(dict[str, Any], {}), **_FIELDS)


def _check_arms(content: Any) -> Any:
    if not (isinstance(content, list) and content and all(isinstance(arm, dict) for arm in content)):
        raise ValueError("must be a list of options, such as - {variant: lora}")
    return content


def _check_defaults(content: Any) -> Any:
    if not isinstance(content, dict):
        raise ValueError("must be options, such as seed: [1, 2, 3]")
    return content


def _check_name(name: str) -> str:
    try:
        check_name("name", name)
    except OptionError as error:
        raise ValueError(error.allowed) from error
    return name


class _ExperimentFile(Section):
    extends: str | None = None
    name: Annotated[str, AfterValidator(_check_name)] | None = None
    about: str = ""
    defaults: Annotated[_Defaults, BeforeValidator(_check_defaults)] = _Defaults()  # type: ignore[valid-type]
    arms: Annotated[list[_Arm], BeforeValidator(_check_arms)] | None = None  # type: ignore[valid-type]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The content of an experiment's file and of the files that it extends.

    Attributes:
        defaults: the values of options as text, by name.
        arms: the same for each arm.
        settings: the variant's own settings of each arm.
    """

    name: str
    about: str
    defaults: Mapping[str, Sequence[str]]
    arms: Sequence[Mapping[str, Sequence[str]]]
    settings: Sequence[Mapping[str, Any]]
    documents: Sequence[Document]

    def fail(self, arm: int, option: str, problem: str) -> NoReturn:
        """Raise an `OptionError` for an option of an arm, with the file and the line that sets it."""
        owner = next(document for document in self.documents if "arms" in document.content)
        for document in self.documents:
            for path in (("arms", arm, option),) * (document is owner) + (("defaults", option),):
                if path in document.lines:
                    document.fail(path, problem)
        owner.fail(("arms", arm), problem)


def read_experiment(file: str, *, others: Sequence[str] = ()) -> Experiment:
    """Read an experiment's file and those that it extends.

    Args:
        others: further keys that a file may have, for the caller to read from `documents`.

    Raises:
        OptionError: a file is missing or malformed; the message names the file and the line.
    """
    files = _read(given_path(file), (), others)
    named = next((pair for pair in files if pair[1].name is not None), None)
    armed = next((pair for pair in files if pair[1].arms is not None), None)
    if named is None or armed is None:
        files[0][0].fail((), _must_have(others))
    defaults: dict[str, Sequence[str]] = {}
    for document, content in reversed(files):
        defaults |= {option: getattr(content.defaults, option) for option in document.content.get("defaults", {})}
    document, content = armed
    arms = list(zip(document.content["arms"], content.arms, strict=True))
    return Experiment(
        name=named[1].name,
        about=next((content.about for _, content in files if "about" in content.model_fields_set), "").strip(),
        defaults=defaults,
        arms=[{option: getattr(arm, option) for option in keys if option not in ARM_KEYS} for keys, arm in arms],
        settings=[arm.options for _, arm in arms],
        documents=[document for document, _ in files],
    )


def _read(path: Path, extending: tuple[Path, ...], others: Sequence[str]) -> list[tuple[Document, Any]]:
    """Return a file and those that it extends, as documents and checked contents.

    `extending` are the files that extend this one, directly or indirectly, and `others` keys that are not checked.
    """
    if not is_file(path):
        or_else = f" with {', '.join(others)}" if others else " or, with dry_run=true, a folder of such files"
        raise OptionError("file", str(path), _missing(path, or_else=or_else))
    if path.resolve() in extending:
        raise OptionError("file", str(path), "must not extend itself")
    document = read_document("file", path)
    if not isinstance(document.content, dict) or not document.content.keys() <= {*_KEYS, *others}:
        document.fail((), _must_have(others))
    own = {key: value for key, value in document.content.items() if key not in others}
    content = replace(document, content=own, lines=_lines_of(own, document)).parse(_ExperimentFile)
    if content.extends is None:
        return [(document, content)]
    extended = path.parent / content.extends
    if not is_file(extended):
        document.fail(("extends",), f"extends={content.extends}: {_missing(extended)}")
    return [(document, content), *_read(extended, (*extending, path.resolve()), others)]


def _must_have(others: Sequence[str]) -> str:
    return f"must have the keys name and arms, and may have {', '.join([*_KEYS, *others])}"


def _lines_of(keys: Collection[str], document: Document) -> dict[Path_, int]:
    return {path: line for path, line in document.lines.items() if not path or path[0] in keys}


def _missing(path: Path, *, or_else: str = "") -> str:
    """Return what is allowed in the place of a path without a file, and what is there."""
    hint = did_you_mean(str(path), map(str, filter(is_file, path.parent.glob("*.yaml"))))
    return moved_to(path) or f"must be the YAML file of an experiment{or_else}; {_found(path)}{hint}"


def _found(path: Path) -> str:
    """Return what a path without a file is."""
    if is_folder(path):
        return "it is a folder"
    if os.path.exists(path):  # noqa: PTH110, see `is_file`
        return "it is a pipe, a device or a socket"
    return f"there is no such file{' behind the link' * os.path.islink(path)}"  # noqa: PTH114, see `is_file`
