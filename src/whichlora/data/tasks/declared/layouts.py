"""The schema of a layout: in which files, or in which dataset on the hub, the data of a declared task is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from whichlora.yaml_files import Section

Text = Annotated[str, Field(min_length=1)]
PLACEHOLDERS = ("lang", "name", "split")
"""Placeholders of file names, hub configs and conditions: a language's code, its name in the data, and the split."""
_PLACEHOLDER = re.compile(r"\{(\w*)\}")


class Data(Section):
    """One layout of the data: files in a folder, or a dataset on the hub.

    Attributes:
        layout: its name in messages.
        train, validation, test: patterns of file names relative to the folder of the declaration, or the splits on the
            hub. Placeholders are `{lang}`, the code, `{name}`, the language's name in the data, and `{split}`, the
            split's name in the data. An asterisk stands for any text; several files are read in the order of their
            names. A file may be compressed and have `.gz` behind its name.
        all: in place of these, the items of a dataset without splits, of which `test_share` become the test set.
        splits: names of the splits in the data, where they are not train, validation and test.
        hub: the dataset's name; `config` and `revision` as on the hub.
        where, id_prefix, fields: replace those of the declaration for this layout.
        format: csv, tsv, json, jsonl or parquet, where the suffix of a file does not tell it.
        quoted: whether cells of CSV and TSV files are in quotation marks, where looking does not tell it.
    """

    layout: Text | None = None
    train: Text | None = None
    validation: Text | None = None
    test: Text | None = None
    all: Text | None = None
    splits: dict[Literal["train", "validation", "test"], Text] = Field(default_factory=dict)
    hub: Text | None = None
    config: Text | None = None
    revision: Text | None = None
    where: dict[str, Text] | None = None
    id_prefix: Text | None = None
    fields: dict[str, Text | int] | None = None
    format: Literal["csv", "tsv", "json", "jsonl", "parquet"] | None = None
    quoted: bool | None = None

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.all is None and self.test is None:
            raise ValueError("lacks test, or all for data without splits")
        if self.all and (self.train or self.validation or self.test):
            raise ValueError("has both all and a split; all is for data without splits")
        patterns = [self.train, self.validation, self.test, self.all, self.config, self.id_prefix]
        for pattern in (*patterns, *(self.where or {}).values()):
            filled(pattern or "", dict.fromkeys(PLACEHOLDERS, ""))
        return self

    @property
    def title(self) -> str:
        """The name shown to users."""
        return self.layout or self.hub or self.pattern_of_test

    @property
    def pattern_of_test(self) -> str:
        """The pattern of the file that every language has."""
        pattern = self.all or self.test
        assert pattern is not None
        return pattern


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """Return a pattern with its placeholders, such as `{lang}`, replaced by values.

    Raises:
        ValueError: it has another placeholder.
    """
    for name in _PLACEHOLDER.findall(pattern):
        if name not in values:
            raise ValueError(f"{pattern} has {{{name}}}; allowed are {', '.join(f'{{{value}}}' for value in values)}")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], pattern)
