"""Compares each method with the best of the others, on the same pairs and errors as `differences`.

Two questions, of which the advice is made: may the method be the best, and is it within the margin of the best? The
interval for a method minus the best of the others follows from the simultaneous intervals of all pairs (multiple
comparisons with the best: Hsu 1996, chapter 4). That a method is at most the margin worse than every other is an
intersection-union test (Berger 1982), Holm-corrected over methods.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.records import Record, find
from analysis.stats.cells import points
from analysis.stats.multiplicity import holm_records

BEST = "minus the best of the others"
Array = NDArray[np.float64]


def best_records(
    methods: Sequence[str],
    pairs: NDArray[np.int64],
    effect: Array,
    half: Array,
    error: Array,
    df: Array,
    *,
    margin: float,
    outcome: str,
    analysis: str,
) -> list[Record]:
    """Return a record for each method with its difference from the best of the others.

    The interval is simultaneous over all pairs, at their level. p is that of the hypothesis that the method is worse
    than some other by the margin or more; it is missing if a pair of the method cannot be tested.

    Args:
        pairs: (pairs, 2) indices into `methods`.
        effect, half, error, df: (pairs,) difference (first minus second), half-width of its simultaneous interval,
            standard error and degrees of freedom; NaN for a pair that cannot be tested.
    """
    records = []
    for index, name in enumerate(methods):
        first = pairs[:, 0] == index
        own = first | (pairs[:, 1] == index)
        difference = np.where(first, effect, -effect)[own]
        tested = np.isfinite(half[own])
        if not tested.any():
            continue
        width = half[own][tested]
        low, high = (difference[tested] - width).min(), (difference[tested] + width).min()
        p = None
        if tested.all():
            p = float(stats.t.sf((difference + margin) / error[own], df[own]).max())
        records.append(
            Record(
                outcome=outcome,
                analysis=analysis,
                test=BEST,
                groups=(name,),
                p=p,
                effect=float(np.nanmin(difference)),
                interval=(float(low), float(high)),
                n=int(tested.sum()),
                note=f"n other methods; simultaneous interval; p: at most {points(margin)} worse than every other?",
            )
        )
    return holm_records(records)


def contenders(records: Sequence[Record], analysis: str) -> list[str]:
    """Return the methods that may be the best: those that are not significantly worse than any other."""
    return [r.groups[0] for r in find(records, analysis=analysis, test=BEST) if r.interval and r.interval[1] > 0]


def within_margin(records: Sequence[Record], analysis: str, alpha: float = 0.05) -> list[str]:
    """Return the methods that are shown to be at most the margin worse than every other."""
    return [
        r.groups[0]
        for r in find(records, analysis=analysis, test=BEST)
        if r.p_adjusted is not None and r.p_adjusted < alpha
    ]
