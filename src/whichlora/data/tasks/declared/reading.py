"""Reads the rows of a split in one language: chooses the layout that a folder has, or the dataset on the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from whichlora.caller import given_path
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.declared import hub
from whichlora.data.tasks.declared.columns import Missing, as_text, defect_of, lookup
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.declared.file_names import files_of, without_other_languages
from whichlora.data.tasks.declared.layouts import Data, filled
from whichlora.data.tasks.declared.tables import Record, Table, UnreadableError, read_table
from whichlora.data.tasks.folder_contents import contents, nearest
from whichlora.errors import OptionError, did_you_mean, is_folder

Part = Split | Literal["all"]
"""A split, or all items of data that has no splits."""
_SHARD = re.compile(r"-\d{5}-of-(\d{5})\b")


@dataclass(frozen=True)
class Place:
    """Where a task's data is, and in which layout.

    Attributes:
        folder: None for a dataset of the hub that is not in a folder.
        shown: the folder as the user gave it, or the dataset's name, for messages.
    """

    folder: Path | None
    shown: str
    layout: Data


@dataclass(frozen=True)
class Rows:
    """The records of a part in one language, the tables that they are from, and the columns of the fields there."""

    place: Place
    tables: tuple[Table, ...]
    records: Sequence[Record]
    fields: Mapping[str, str | int]

    def fail(self, problem: str) -> OptionError:
        """Return the error for a problem with these rows."""
        return OptionError("data_dir", self.place.shown, problem)


def find(declaration: Declaration, root: Path | None, data_dir: str | None) -> Place:
    """Return the folder or dataset with a task's data, and the first layout that it has.

    Args:
        root: the folder of the declaration, where its files are unless `data_dir` names another; None for one of the
            catalogue.

    Raises:
        OptionError: the folder fits no layout; the message lists what is in it.
    """
    folder = given_path(data_dir) if data_dir else root
    if folder is not None and not is_folder(folder):
        raise OptionError("data_dir", data_dir or folder, "is not a folder")
    shown = data_dir or str(folder or "auto")
    expected: list[str] = []
    fitting: list[Place] = []
    for layout in declaration.layouts if folder else ():
        if layout.hub is None:
            place = Place(folder, shown, layout)
            first = _first_files(declaration, place)
            expected.append(filled(layout.pattern_of_test, _names(declaration, declaration.reference, "test", layout)))
            fitting += [place] if first else []
    if fitting:
        return next((place for place in fitting if _has_columns(declaration, place)), fitting[0])
    of_hub = [layout for layout in declaration.layouts if layout.hub]
    if of_hub and (not data_dir or (folder and hub.is_copy(folder))):
        return Place(folder if data_dir else None, data_dir or str(of_hub[0].hub), of_hub[0])
    if folder is None:
        raise OptionError("data_dir", shown, "this task is not packaged; set data_dir to the folder with its data")
    listed = contents(folder)
    if not expected:
        wanted = f"is not a copy of {of_hub[0].hub}: it has no README.md with its configs"
        raise OptionError("data_dir", shown, f"{wanted}; {listed}")
    usable = without_other_languages(declaration, declaration.reference, listed.names)
    raise OptionError("data_dir", shown, f"has none of {', '.join(expected[:6])}; {listed}{nearest(expected, usable)}")


def rows(declaration: Declaration, place: Place, language: str, part: Part) -> Rows | None:
    """Return the rows of a part in one language; None if the data has no such part in this language.

    Raises:
        OptionError: the data is missing where other languages have it, or cannot be read.
    """
    layout = place.layout
    pattern = getattr(layout, part)
    if pattern is None:
        return None
    names = _names(declaration, language, part, layout)
    tables = _tables(declaration, place, pattern, names)
    if not tables:
        others = [code for code in declaration.codes if _files(declaration, place, code, part)]
        if part == "train" and others:
            return None
        if part == "validation" and not others:
            return None
        listed = contents(place.folder) if place.folder else None
        wanted = filled(pattern, names)
        usable = without_other_languages(declaration, language, listed.names if listed else ())
        found = f"; {listed}{nearest([wanted], usable)}" if listed else ""
        raise OptionError("data_dir", place.shown, f"has no {wanted} for {part} in {language}{found}")
    everything = [record for table in tables for record in table.records]
    fields = _filled_fields(declaration, layout, names)
    found_rows = Rows(place, tables, everything, fields)
    if not everything:
        raise found_rows.fail(f"{tables[0].name} has no items")
    selected = _select(declaration, found_rows, pattern, names)
    of_one_language = "{lang}" in pattern or "{name}" in pattern
    if not selected and part in ("train", "validation") and not of_one_language:
        return None
    if not selected:
        raise found_rows.fail(f"{tables[0].name} has no items in {language}{_instead(declaration, found_rows, names)}")
    return Rows(place, tables, selected, fields)


def has_part(declaration: Declaration, place: Place, language: str, part: Part) -> bool:
    """Return whether the data has a file of a part in a language; on the hub, whether all languages have it."""
    if getattr(place.layout, part) is None:
        return False
    return bool(place.layout.hub or _files(declaration, place, language, part))


def _names(declaration: Declaration, language: str, part: Part, layout: Data) -> dict[str, str]:
    """Return the values of the placeholders."""
    split = part if part == "all" else layout.splits.get(part, part)
    return {"lang": language, "name": declaration.name_in_data(language), "split": split}


def _files(declaration: Declaration, place: Place, language: str, part: Part) -> list[Path]:
    pattern = getattr(place.layout, part)
    return files_of(declaration, place.folder, pattern, _names(declaration, language, part, place.layout))


def _filled_fields(declaration: Declaration, layout: Data, names: Mapping[str, str]) -> dict[str, str | int]:
    columns = declaration.fields_of(layout)
    return {name: filled(column, names) if isinstance(column, str) else column for name, column in columns.items()}


def _first_files(declaration: Declaration, place: Place) -> list[Path]:
    """Return the test files of the first language that has some."""
    for code in (declaration.reference, *declaration.codes):
        names = _names(declaration, code, "test", place.layout)
        found = files_of(declaration, place.folder, place.layout.pattern_of_test, names)
        if found:
            return found
    return []


def _has_columns(declaration: Declaration, place: Place) -> bool:
    files = _first_files(declaration, place)[:1]
    try:
        records = [record for table in _read(declaration, place, files) for record in table.records]
    except OptionError:
        return False
    first = next((record for record in records if not record.problem), None)
    names = _names(declaration, declaration.reference, "test", place.layout)
    columns = _filled_fields(declaration, place.layout, names).values()
    return first is not None and all(has_column(first, column) for column in columns)


def has_column(record: Record, column: str | int) -> bool:
    """Return whether a record has a column."""
    try:
        lookup(record.values, column)
    except Missing:
        return False
    return True


def _tables(declaration: Declaration, place: Place, pattern: str, names: Mapping[str, str]) -> tuple[Table, ...]:
    if place.layout.hub:
        config = filled(place.layout.config, names) if place.layout.config else None
        source = str(place.folder or place.layout.hub)
        revision = None if place.folder else place.layout.revision
        return (hub.table(source, config, filled(pattern, names), revision),)
    return _read(declaration, place, files_of(declaration, place.folder, pattern, names))


def _read(declaration: Declaration, place: Place, files: Sequence[Path]) -> tuple[Table, ...]:
    layout, folder = place.layout, place.folder
    assert folder is not None
    if files and (shard := _SHARD.search(files[0].name)) and int(shard[1]) != len(files):
        raise OptionError("data_dir", place.shown, f"has {len(files)} of {int(shard[1])} files like {files[0].name}")
    columns = declaration.columns_of(layout)
    try:
        return tuple(
            read_table(
                path,
                os.path.relpath(path, folder),
                tuple(map(str, columns)),
                header=not any(isinstance(column, int) for column in columns),
                form=layout.format,
                quoted=layout.quoted,
            )
            for path in files
        )
    except UnreadableError as error:
        raise OptionError("data_dir", place.shown, str(error)) from error
    except OSError as error:
        raise OptionError("data_dir", place.shown, f"{files[0].name} cannot be read ({error.strerror})") from error


def _select(declaration: Declaration, found: Rows, pattern: str, names: Mapping[str, str]) -> list[Record]:
    """Return the records that meet all conditions, and those that are malformed."""
    layout, records = found.place.layout, found.records
    selected = list(records)
    for column, wanted in declaration.where_of(layout).items():
        text = as_text(filled(wanted, names)) or ""
        if not any(has_column(record, column) for record in records):
            if "{" in wanted and "{" in pattern:
                continue  # each file has one language, and needs no column that says which
            raise found.fail(f"{found.tables[0].name} has no column {column!r}{_columns(records, column)}")
        selected = [record for record in selected if record.problem or _value(record, column) == text]
    if prefix := declaration.id_prefix_of(layout):
        begin, column = filled(prefix, names), str(found.fields["id"])
        selected = [record for record in selected if record.problem or _value(record, column).startswith(begin)]
    usable = any(not record.problem for record in selected)
    return selected if usable or all(record.problem for record in records) else []


def _value(record: Record, column: str) -> str:
    try:
        return as_text(lookup(record.values, column)) or ""
    except Missing:
        return ""


def _columns(records: Iterable[Record], wanted: str) -> str:
    """Return what columns there are, for a message."""
    present = list(dict.fromkeys(name for record in records for name in record.values))
    encoding = ". The file is not UTF-8; save it as UTF-8" if any(map(defect_of, present)) else ""
    return f"; it has {', '.join(present[:20])}{did_you_mean(wanted, present)}{encoding}"


def _instead(declaration: Declaration, found: Rows, names: Mapping[str, str]) -> str:
    """Return which values the data has where a condition is not met, for a message."""
    texts = []
    for column, wanted in declaration.where_of(found.place.layout).items():
        text = as_text(filled(wanted, names)) or ""
        values = list(dict.fromkeys(_value(record, column) for record in found.records))
        if text not in values:
            texts.append(f"; {column} is {', '.join(values[:10])}, not {text}{did_you_mean(text, values)}")
    if prefix := declaration.id_prefix_of(found.place.layout):
        column = str(found.fields["id"])
        texts.append(
            f"; no id begins with {filled(prefix, names)!r}, the first is {_value(found.records[0], column)!r}"
        )
    return "".join(texts)


def missing_column(declaration: Declaration, found: Rows, optional: Iterable[str]) -> str:
    """Return a message about the first column that no record has; empty if there is none."""
    fields = found.fields
    needed = {column: name for name, column in fields.items() if name not in optional}
    for name in (declaration.group, declaration.stratify):
        if name is not None and name not in fields:
            needed[name] = name
    usable = [record for record in found.records if not record.problem]
    for column, name in needed.items():
        if not usable or any(has_column(record, column) for record in usable):
            continue
        of_field = f" for {name}" if name != column else ""
        return f"{found.tables[0].name} has no column {column!r}{of_field}{_columns(usable, str(column))}"
    return ""
