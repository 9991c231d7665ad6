"""Judges claims that hold in a number of parts: in all configurations but three, or in four of five measures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.claims.orders import NOT_WORSE
from analysis.claims.relations import Relations
from analysis.claims.verdicts import CONTRADICTED, SUPPORTED, Verdict, format_p, undecided
from analysis.records import Record
from analysis.stats.cells import enumerate_few
from analysis.stats.conjunctions import Directions, directions, least_number, partial_conjunction

ANALYSIS = "parts of a claim"


@dataclass(frozen=True)
class Part:
    """A part of a claim.

    Attributes:
        holds, fails: p of the one-sided tests that the part holds and that it fails; 1 if there is no test.
        seen: whether the estimates are as claimed.
        records: its tests.
        untested: why there is no test; "" if there is one.
    """

    name: str
    holds: float
    fails: float
    seen: bool
    records: tuple[Record, ...] = ()
    untested: str = ""


def number_needed(hold: str | int, total: int) -> int:
    """Return the number of parts, out of `total`, in which a claim must hold: all, most, "all but 3", or 4.

    Raises:
        ValueError: `hold` is none of these.
    """
    if hold == "all":
        return total
    if hold == "most":
        return total // 2 + 1
    if isinstance(hold, int) and hold > 0:
        return hold
    if match := re.fullmatch(r"all but ([1-9]\d{0,3})", str(hold)):
        return total - int(match[1])
    raise ValueError(f"hold {hold}; allowed are all, most, all but N, or a number from 1")


def judge_parts(
    parts: Sequence[Part], hold: str | int, alpha: float, *, outcome: str, unit: str, of: int = 1
) -> Verdict:
    """Judge whether a claim holds in as many parts as needed.

    It is supported if it is shown to hold in so many, and contradicted if it is shown to fail in more than the others.
    Each is a test of a partial conjunction at `alpha`; at most one of the two can be wrong.

    Args:
        unit: what a part is, in the plural.
        of: the number of parts that the claim is about; with fewer it is undecided.
    """
    total = len(parts)
    if 0 < total < of:
        return undecided(f"there {'is' if total == 1 else 'are'} {total} {unit}, and the claim is about {of}")
    tested = [part for part in parts if not part.untested]
    if not tested:
        return undecided(parts[0].untested if parts else f"there are no {unit} to compare")
    needed = number_needed(hold, total)
    if not 0 < needed <= total:
        return undecided(f"there {'is' if total == 1 else 'are'} {total} {unit}, and the claim is about {hold}")
    holds, fails = [part.holds for part in parts], [part.fails for part in parts]
    conjunctions = [
        Record(
            outcome=outcome,
            analysis=ANALYSIS,
            test=f"{verb} in at least {least} of {total}",
            groups=(),
            p=partial_conjunction(p, least),
            effect=least_number(p, alpha),
            n=total,
            note=f"partial conjunction (Bonferroni), n {unit}; effect: in how many it is shown at this level",
        )
        for verb, p, least in (("holds", holds, needed), ("fails", fails, total - needed + 1))
    ]
    shown, refuted = conjunctions
    text = f"as claimed in {sum(part.seen for part in parts)} of {total} {unit}, {needed} needed "
    text += f"({format_p(shown.p)} that it holds in so many, {format_p(refuted.p)} that it fails in too many); "
    text += f"shown to hold in at least {shown.effect:.0f} and to fail in at least {refuted.effect:.0f}"
    if others := [part.name for part in parts if not part.seen]:
        text += f"; not as claimed: {enumerate_few(others, 4)}"
    if len(tested) < total:
        untested = next(part for part in parts if part.untested)
        text += f"; {total - len(tested)} without a test ({untested.name}: {untested.untested})"
    evidence = (*conjunctions, *(record for part in parts for record in part.records))
    for verdict, record in ((SUPPORTED, shown), (CONTRADICTED, refuted)):
        if record.p is not None and record.p < alpha:
            return Verdict(verdict, text, evidence)
    return undecided(text, evidence)


def untested_part(name: str, reason: str) -> Part:
    """Return a part without a test."""
    return Part(name, 1.0, 1.0, seen=False, untested=reason)


def parts_of_differences(
    differences: Sequence[tuple[str, Relations, NDArray[np.float64]]],
    margin: float,
    outcome: str,
    *,
    independent: bool = False,
) -> list[Part]:
    """Return a part for each entry: a name, relations, and their differences of shape (relations, blocks, replicates).

    Errors are moderated over all relations of all parts, so values must have one scale. A part holds if all of its
    relations hold (intersection-union), and fails if one of them fails (Bonferroni).

    Args:
        margin: in the unit of the values; "=" and ">=" mean within it, and ">" fails if it is shown to be less than it.
        independent: whether no two differences have a side in common, see `directions`.
    """
    shape = np.max([values.shape[1:] for _, _, values in differences], axis=0) if differences else (0, 0)
    rows = []
    for _, _, values in differences:
        padding = [(0, 0), *((0, int(size - own)) for size, own in zip(shape, values.shape[1:], strict=True))]
        rows.append(np.pad(values, padding, constant_values=np.nan))
    found = directions(np.concatenate(rows), independent=independent) if rows else None
    parts, start = [], 0
    for name, relations, _ in differences:
        assert found is not None
        positions = range(start, start + len(relations))
        start += len(relations)
        signs = {position: sign for position, (_, sign, _) in zip(positions, relations, strict=True)}
        judged = [_judge(found, position, sign, margin) for position, sign in signs.items()]
        records = tuple(
            _record(found, position, relation, name, holds, outcome)
            for position, relation, (holds, _, _) in zip(positions, relations, judged, strict=True)
        )
        untested = "fewer than two seeds or units in common"
        lacking = all(np.isnan(found.errors.error[i]) and np.isnan(found.constant[i]) for i in positions)
        parts.append(
            Part(
                name,
                max(holds for holds, _, _ in judged),
                min(1.0, len(judged) * min(fails for _, fails, _ in judged)),
                seen=all(seen for _, _, seen in judged),
                records=records,
                untested=untested if lacking else "",
            )
        )
    return parts


def _judge(found: Directions, position: int, sign: str, margin: float) -> tuple[float, float, bool]:
    """Return p that a relation holds, p that it fails, and whether the estimate is as claimed."""
    effect = float(found.errors.effect[position])
    if sign == NOT_WORSE:
        return float(found.above(-margin)[position]), float(found.below(-margin)[position]), effect > -margin
    if sign == ">":
        return float(found.above()[position]), float(found.below(margin)[position]), effect > 0
    holds = max(found.above(-margin)[position], found.below(margin)[position])
    fails = 2 * min(found.above()[position], found.below()[position])
    return float(holds), float(min(1.0, fails)), abs(effect) < margin


def _record(
    found: Directions, position: int, relation: tuple[str, str, str], name: str, p: float, outcome: str
) -> Record:
    effect, error, df, _ = (float(values[position]) for values in found.errors)
    half = stats.t.isf(0.025, df) * error
    tested = not (np.isnan(error) and np.isnan(found.constant[position]))
    first, sign, second = relation
    return Record(
        outcome=outcome,
        analysis=ANALYSIS,
        test=f"{first} {sign} {second}",
        groups=(name,),
        statistic=effect / error,
        df=(df,),
        p=p if tested else None,
        effect=effect,
        interval=(effect - half, effect + half),
        n=int(found.n[position]),
        note="effect: the first minus the second; p: one-sided, that the relation holds; n paired units",
    )
