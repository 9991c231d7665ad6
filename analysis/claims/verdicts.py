"""Judges one pair of methods or levels, and phrases the reasons of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.claims.comparisons import Pair
from analysis.decimals import fixed, interval
from analysis.records import Record, is_significant
from analysis.stats.cells import points

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        reason: a sentence; its numbers come from the evidence.
        evidence: the records that the verdict rests on.
    """

    verdict: str
    reason: str
    evidence: tuple[Record, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether the runs allow a test of the claim."""
        return any(record.p is not None for record in self.evidence)


def undecided(reason: str, evidence: Sequence[Record] = ()) -> Verdict:
    """Return the verdict "undecided"; the reason may be the note of a record without p."""
    return Verdict(UNDECIDED, reason.removeprefix("no test: "), tuple(evidence))


def judge_greater(pair: Pair, alpha: float, margin: float) -> tuple[str, str]:
    """Judge whether the first of a pair is greater, and return the verdict with its reason."""
    difference, equivalence = pair.difference, pair.equivalence
    if difference.p is None:
        return UNDECIDED, difference.note.removeprefix("no test: ")
    text = format_pair(difference)
    if is_significant(difference, alpha):
        expected = (difference.effect or 0) > 0
        return (SUPPORTED, text) if expected else (CONTRADICTED, f"{text}, in the opposite direction")
    if equivalence is not None and is_significant(equivalence, alpha):
        return CONTRADICTED, f"{text}, equivalent within {points(margin)} (TOST, {format_p(equivalence.p_adjusted)})"
    return UNDECIDED, f"{text}, {_undecided_reason(pair, margin)}"


def judge_equal(pair: Pair, alpha: float, margin: float) -> tuple[str, str]:
    """Judge whether a pair is equivalent within the margin, and return the verdict with its reason."""
    difference, equivalence = pair.difference, pair.equivalence
    if difference.p is None:
        return UNDECIDED, difference.note.removeprefix("no test: ")
    text = format_pair(difference)
    if equivalence is not None and equivalence.p is not None and equivalence.p < alpha:
        return SUPPORTED, f"{text}, equivalent within {points(margin)} (TOST, {format_p(equivalence.p)})"
    if is_significant(difference, alpha):
        return CONTRADICTED, text
    return UNDECIDED, f"{text}, {_undecided_reason(pair, margin)}"


def _undecided_reason(pair: Pair, margin: float) -> str:
    text = f"neither significantly different nor equivalent within {points(margin)}"
    record = pair.detectable
    if record is None or record.effect is None:
        return text
    return f"{text} (minimum detectable difference {record.effect:.1f} at power 80 %, n = {record.n})"


def format_pair(record: Record) -> str:
    """Return the difference of a pair, with its interval and p."""
    low, high = record.interval or (float("nan"), float("nan"))
    p = record.p if record.p_adjusted is None else record.p_adjusted
    effect, ends = fixed(record.effect or 0.0, 2, sign=True), interval(low, high, 2).replace(" to ", ", ")
    return f"{record.groups[0]} - {record.groups[1]} {effect} [{ends}] ({format_p(p)})"


def format_p(p: float | None) -> str:
    """Return p with three decimals, without the leading zero."""
    if p is None:
        return "p unknown"
    return "p < .001" if p < 0.001 else "p > .999" if p > 0.999 else f"p = {p:.3f}".replace("0.", ".", 1)
