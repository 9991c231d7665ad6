"""Reads YAML files that users write, and checks them against a schema; errors name the file and the line.

Plain scalars are those of the core schema of YAML 1.2: `1e-4` is a number, and `no`, `on`, `1:30`, `010` and
`2026-01-31` are text, which YAML 1.1 reads as a boolean, a number in base 60 or 8, or a date.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from whichlora.errors import OptionError, PlacedError, did_you_mean, has_control_characters, is_file

MAX_BYTES = 2**20
_MAX_DEPTH, _MAX_DIGITS = 20, 18
_MAX_VALUES = 100_000
"""Values of a document, counted with every repetition by an alias."""

Path_ = tuple[str | int, ...]
"""Keys and positions that lead to a value of a document."""
Schema = TypeVar("Schema", bound=BaseModel)


class Section(BaseModel):
    """A mapping of a YAML file: unknown keys are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())
    command: ClassVar[str] = ""
    """The command of which the keys are options, for the message about an unknown one."""

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, content: Any) -> Any:
        names = [entry.alias or name for name, entry in cls.model_fields.items()]
        if not isinstance(content, dict):
            raise ValueError(f"must be a mapping of {', '.join(names)}")
        for key in content:
            if key not in names:
                unknown = f"has no option {key!r} of {cls.command}" if cls.command else f"has {key}"
                allowed = "" if cls.command else f"; allowed are {', '.join(names)}"
                raise PlacedError((key,), f"{unknown}{allowed}{did_you_mean(key, names)}")
        return content


@dataclass(frozen=True)
class Document:
    """The content of a YAML file with the lines of its values.

    Attributes:
        option: the option that names the file, for error messages.
        file: the file as the user gave it.
        content: mappings, lists, texts, numbers, booleans and None.
        text: the file as it is written.
        lines: the line of each value, counted from 1.
    """

    option: str
    file: str
    content: Any
    lines: dict[Path_, int] = field(default_factory=dict)
    text: str = ""

    def fail(self, path: Path_, problem: str) -> NoReturn:
        """Raise an `OptionError` for the value at `path`, or for the innermost known value around it."""
        raise OptionError(self.option, self.file, f"line {self._line(path)}: {problem}")

    def parse(self, schema: type[Schema], path: Path_ = ()) -> Schema:
        """Return the content, or the value at `path`, as an instance of a schema.

        Raises:
            OptionError: the content does not fit; of several errors, the first in the file is reported.
        """
        value = self.content
        for key in path:
            value = value.get(key, {}) if isinstance(value, dict) else value[key]
        try:
            parsed = schema.model_validate(value)
            self._check_texts()
            return parsed
        except ValidationError as error:
            problems = [self._problem((*path, *entry["loc"]), entry) for entry in error.errors(include_url=False)]
        self.fail(*min(problems, key=lambda problem: self._line(problem[0])))

    def _check_texts(self) -> None:
        for path in self.lines:
            value = self.content
            for key in path:
                value = value[key]
            if isinstance(value, str) and has_control_characters(value.replace("\n", " ").replace("\t", " ")):
                self.fail(path, f"{self._name(path)}has a control character")

    def _problem(self, path: Path_, entry: Any) -> tuple[Path_, str]:
        """Return the place and the text of an error that pydantic found."""
        kind, cause = entry["type"], entry.get("ctx", {}).get("error")
        place = self._known(path)
        if isinstance(cause, PlacedError):
            return self._known((*place, *cause.path)), f"{self._name(place)}{cause}"
        if isinstance(cause, OptionError):
            return place, str(cause)
        if kind == "missing":
            return place, f"{self._name(place)}lacks {path[-1]}"
        texts = {
            "string_type": "must be text" + "; put it in quotes" * isinstance(entry["input"], int | float),
            "string_too_short": "must not be empty",
            "int_type": "must be a whole number",
            "dict_type": "must be a mapping",
            "list_type": "must be a list",
        }
        text = str(cause) if cause else texts.get(kind, entry["msg"].replace("Input should be", "must be"))
        return place, f"{self._name(place)}{text}"

    def _known(self, path: Path_) -> Path_:
        """Return the part of a path that is in the file: without types that pydantic inserts, and missing keys."""
        return reduce(lambda known, key: (*known, key) if (*known, key) in self.lines else known, path, ())

    def _name(self, path: Path_) -> str:
        """Return the name of a value for a message, with a space behind it: keys, and names or numbers of entries."""
        names = []
        value = self.content
        for key in path:
            value = value[key]
            if isinstance(key, int):
                name = value.get("name") if isinstance(value, dict) else None
                names.append(name if isinstance(name, str) and name else f"entry {key + 1}")
                names = names[-1:] if isinstance(value, dict) else names
            else:
                names.append(str(key))
        return f"{': '.join(names)} " if names else ""

    def _line(self, path: Path_) -> int:
        return self.lines.get(self._known(path), 1)


def read_document(option: str, file: str | Path, *, scalar_keys: bool = False, text: str | None = None) -> Document:
    """Read a YAML file with one document; `text` is its content if it has been read.

    With `scalar_keys`, keys may also be numbers and booleans, which are read as the text that they are written with.

    Refused are keys that occur twice or are not text, tags, infinite and undefined numbers, integers of more than 18
    digits, nesting deeper than 20 levels and files above 1 MiB; `Document.parse` refuses control characters too.

    Raises:
        OptionError: the file cannot be read, is not YAML, or contains what is refused; the message names the line.
    """
    document = Document(option, str(file), None)
    text = _text(document) if text is None else text
    try:
        node = _compose(document, text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise OptionError(option, file, f"line {line}: cannot be read: it has a control character") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise OptionError(option, file, f"line {line}: cannot be read: {problem}") from error
    except OptionError:
        raise
    except ValueError as error:  # an escaped code point above U+10FFFF
        raise OptionError(option, file, f"cannot be read: {error}") from error
    content = None if node is None else _Builder(document, scalar_keys=scalar_keys).value(node, ())
    return Document(option, str(file), content, document.lines, text)


def _compose(document: Document, text: str) -> yaml.Node | None:
    """Return the root node, after a check of the depth: PyYAML composes nodes recursively."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            _fail(document, event, f"is nested deeper than {_MAX_DEPTH} levels")
    node: yaml.Node | None = yaml.compose(text, _Loader)
    return node


def _text(document: Document) -> str:
    path = Path(document.file)
    if not is_file(path):
        raise OptionError(document.option, document.file, "cannot be read: there is no such file")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OptionError(document.option, document.file, "cannot be read: it is larger than 1 MiB")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise OptionError(document.option, document.file, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise OptionError(document.option, document.file, f"line {line}: cannot be read: it is not UTF-8") from error


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012, as in the base class


_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE = (
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "merge")
)
for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (_MERGE, r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


class _Builder:
    """Builds the values of a document from the nodes of PyYAML and notes their lines."""

    def __init__(self, document: Document, *, scalar_keys: bool) -> None:
        self._document = document
        self._key_tags = (_STR, _INT, _FLOAT, _BOOL) if scalar_keys else (_STR,)
        self._count = 0

    def value(self, node: yaml.Node, path: Path_) -> Any:
        """Return the value of a node."""
        self._count += 1
        if self._count > _MAX_VALUES:
            _fail(self._document, node, f"has more than {_MAX_VALUES} values")
        if len(path) > _MAX_DEPTH:  # an alias of a node that contains it
            _fail(self._document, node, f"is nested deeper than {_MAX_DEPTH} levels")
        self._document.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(child, (*path, key)) for key, child in self._entries(node, len(path)).items()}
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _entries(self, node: yaml.MappingNode, depth: int) -> dict[str, yaml.Node]:
        """Return the nodes of a mapping by key; its own override those that `<<` merges into it."""
        if node.tag != "tag:yaml.org,2002:map":
            _fail(self._document, node, f"has the tag {node.tag}; no tags are allowed")
        own: dict[str, yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, child in node.value:
            if key.tag == _MERGE:
                if not isinstance(child, yaml.MappingNode) or depth > _MAX_DEPTH:
                    _fail(self._document, key, "<< must be followed by an alias of one mapping")
                merged |= self._entries(child, depth + 1)
                continue
            if key.tag not in self._key_tags or not isinstance(key, yaml.ScalarNode):
                shown = f"the key {key.value}" if isinstance(key, yaml.ScalarNode) else "a list or mapping as a key"
                _fail(self._document, key, f"has {shown}; keys must be text")
            if key.value in own:
                _fail(self._document, key, f"has the key {key.value} twice")
            if has_control_characters(key.value):
                _fail(self._document, key, "has a control character in a key")
            own[key.value] = child
        return merged | own

    def _scalar(self, node: yaml.Node) -> Hashable:
        text = str(node.value)
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (_NULL, _BOOL, _INT, _FLOAT, _STR, _MERGE):
            _fail(self._document, node, f"has the tag {node.tag}; no tags are allowed")
        if node.tag == _NULL:
            return None
        if node.tag == _BOOL:
            return text.lower() == "true"
        if node.tag == _INT:
            return self._integer(node, text)
        if node.tag == _FLOAT:
            return self._float(node, text)
        return text

    def _integer(self, node: yaml.Node, text: str) -> int:
        if not re.fullmatch(r"[-+]?[0-9]+", text):  # with an explicit tag
            _fail(self._document, node, f"has {text}, which is not an integer")
        if len(text.lstrip("+-")) > _MAX_DIGITS:
            _fail(self._document, node, f"has an integer of more than {_MAX_DIGITS} digits")
        return int(text)

    def _float(self, node: yaml.Node, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            _fail(self._document, node, f"has {text[:20]}, which is not a finite number")
        return value


def _fail(document: Document, place: yaml.Node | yaml.Event, problem: str) -> NoReturn:
    line = place.start_mark.line + 1 if place.start_mark else 1
    raise OptionError(document.option, document.file, f"line {line}: {problem}")
