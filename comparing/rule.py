"""What is fixed before the first seed, besides the methods: seeds, margin, confidence and the score that counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice

from tuning.study_config import TUNING_SEED
from whichlora.errors import OptionError, parse_integer
from whichlora.option_lists import parse_list

PRIMARIES = ("tl", "en", "mean")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The options of `analysis.stats.sequential.verdict.judge`, and the seeds.

    Attributes:
        seeds: of the first rounds, in ascending order.
        max_seeds: number of seeds at most.
        margin: in points.
        confidence: of all statements together.
        primary: the outcome that counts: "tl", "en" or "mean".
    """

    seeds: tuple[int, ...]
    max_seeds: int
    margin: float
    confidence: float
    primary: str

    @property
    def rounds(self) -> tuple[int, ...]:
        """The seed of each round: those given, then the integers that follow the last of them."""
        return tuple(islice((*self.seeds, *islice(count(self.seeds[-1] + 1), self.max_seeds)), self.max_seeds))

    def beginning_with(self, seeds: Sequence[int]) -> Rule:
        """Return the rule with other seeds of the first rounds."""
        return replace(self, seeds=tuple(sorted(set(seeds))))

    def check(self) -> None:
        """Check that the seeds are not those of tuning.

        Raises:
            OptionError: one of them is.
        """
        if self.rounds[-1] >= TUNING_SEED:
            allowed = f"must stay below {TUNING_SEED}, where the seeds of tuning begin, with {self.max_seeds} seeds"
            raise OptionError("seed", self.rounds[-1], allowed)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse the seeds of the first rounds.

    Raises:
        OptionError: they are not ascending numbers.
    """
    seeds = tuple(parse_list("seed", text, partial(parse_integer, low=0, high=TUNING_SEED - 1)))
    if list(seeds) != sorted(set(seeds)):
        raise OptionError("seed", text, "must be in ascending order, each once: seeds are judged in this order")
    return seeds
