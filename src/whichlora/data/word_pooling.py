"""Which states stand for a word."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pooling:
    """The decoder block, from 0, whose output is averaged, and whether the first token is dropped or kept.

    A spec holds it as its `scoring`: it decides both what is trained and what is scored.
    """

    layer: int
    first_token: str = "drop"

    def __str__(self) -> str:
        return f"layer-{self.layer}" + ("-first-token" if self.first_token == "keep" else "")

    @classmethod
    def read(cls, text: str) -> Pooling:
        """Read what `str` gives."""
        match = re.fullmatch(r"layer-(\d+)(-first-token)?", text)
        if match is None:
            raise ValueError(f"{text} is no pooling")
        return cls(int(match[1]), "keep" if match[2] else "drop")

    @property
    def start(self) -> int:
        """The first position that counts."""
        return 1 if self.first_token == "drop" else 0
