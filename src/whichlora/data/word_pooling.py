"""Specifies which hidden states represent a word or a sentence."""

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


def retrieval_layer(n_layers: int) -> int:
    """Return the decoder block, counted from 0, at which sentence retrieval is reported: floor(.55 n + .5).

    XTREME-R's code (scripts/run_tatoeba.sh) has two constants and no rule: block 7 of 12 for mBERT and 13 of 24 for
    XLM-R large, counted from 0, so .67 and .58 of the depth have been passed. Rounding .55 n gives both constants.
    """
    return min((11 * n_layers + 10) // 20, n_layers - 1)
