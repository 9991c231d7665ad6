"""Specifies which hidden states represent a word."""

from __future__ import annotations

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

    @property
    def start(self) -> int:
        """The first token position that is averaged."""
        return 1 if self.first_token == "drop" else 0
