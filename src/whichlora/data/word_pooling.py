"""Specifies which hidden states represent a word."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Pooling:
    """A decoder block (counted from 0) whose output is averaged over tokens, with or without the first token.

    Stored as `scoring` in the spec; used by both the training objective and the score.
    """

    layer: int
    first_token: str = "drop"

    def __str__(self) -> str:
        return f"layer-{self.layer}" + ("-first-token" if self.first_token == "keep" else "")

    @classmethod
    def read(cls, text: str) -> Pooling:
        """Parse the output of `str`.

        Raises:
            ValueError: the text is not in that format.
        """
        match = re.fullmatch(r"layer-(\d+)(-first-token)?", text)
        if match is None:
            raise ValueError(f"{text} is not a pooling such as layer-3 or layer-3-first-token")
        return cls(int(match[1]), "keep" if match[2] else "drop")

    @property
    def start(self) -> int:
        """The first token position that is averaged."""
        return 1 if self.first_token == "drop" else 0
