"""The sections of a declaration that say how answers end, how many items there are, and where the data comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from whichlora.yaml_files import Section

Text = Annotated[str, Field(min_length=1)]


class Answer(Section):
    """How an answer ends: after `tokens` tokens at most, or at the text `until`; empty, only at the end of the text."""

    tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    until: str | None = None


class About(Section):
    """Where the data comes from."""

    title: Text | None = None
    licence: Text | None = None
    citation: Text | None = None
    source: Text | None = None
    size: Text | None = None
    faults: list[Text] = Field(default_factory=list)


class Sizes_(Section):
    """Default numbers of items; `test` may be left out for all items."""

    train: Annotated[int, Field(ge=1)] | None = None
    validation: Annotated[int, Field(ge=1)] | None = None
    test: Annotated[int, Field(ge=1)] | None = None
