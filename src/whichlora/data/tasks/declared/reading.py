"""Reads the rows of a declared task: chooses the layout that a folder has, and the rows of a split in one language."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whichlora.caller import given_path
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.declared.declaration import Data, Declaration, filled
from whichlora.data.tasks.files import Row
from whichlora.errors import OptionError, is_file, is_folder


def rows(
    declaration: Declaration, root: Path | None, language: str, split: Split, data_dir: str | None
) -> list[Row] | None:
    """Return the rows of a split in one language; None if the data has no such split in this language.

    Args:
        root: the folder of the declaration, where its files are unless `data_dir` names another; None for one of the
            catalogue.

    Raises:
        OptionError: the data does not fit any layout, or cannot be read.
    """
    names = {"lang": language, "name": declaration.name_in_data(language)}
    folder = given_path(data_dir) if data_dir else root
    if folder is not None and not is_folder(folder):
        raise OptionError("data_dir", data_dir or folder, "is not a folder")
    shown = data_dir or str(folder)
    layout = _layout(declaration, folder, shown)
    pattern = getattr(layout, split)
    if pattern is None:
        return None
    assert folder is not None
    path = folder / filled(pattern, names)
    if not is_file(path):
        if split == "train":
            return None
        raise OptionError("data_dir", shown, f"has no {path.name}")
    where = {column: filled(text, names) for column, text in (layout.where or declaration.where).items()}
    found = [
        Row(shown, f"{path.name} {location}", values)
        for location, values in _rows(path)
        if all(str(values.get(column)) == text for column, text in where.items())
    ]
    if not found:
        raise OptionError("data_dir", shown, f"{path.name} has no items in {language}")
    return found


def _layout(declaration: Declaration, folder: Path | None, shown: str) -> Data:
    first = declaration.source or declaration.codes[0]
    names = {"lang": first, "name": declaration.name_in_data(first)}
    for layout in declaration.layouts:
        if folder is not None and layout.hub is None and is_file(folder / filled(layout.test, names)):
            return layout
    expected = ", ".join(filled(layout.test, names) for layout in declaration.layouts)
    raise OptionError("data_dir", shown, f"has none of {expected}")


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".parquet":
        import pyarrow.parquet

        for n, values in enumerate(pyarrow.parquet.read_table(path).to_pylist(), 1):
            yield f"row {n}", values
        return
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix in (".csv", ".tsv"):
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="," if path.suffix == ".csv" else "\t")
        for values in reader:
            yield f"line {reader.line_num}", values
    elif path.suffix == ".json":
        for n, values in enumerate(json.loads(text), 1):
            yield f"item {n}", values
    else:
        for n, line in enumerate(text.split("\n"), 1):
            if line:
                yield f"line {n}", json.loads(line)
