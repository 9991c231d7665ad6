"""Compares each method with the best of the others, on the same pairs and errors as `differences`.

Two questions, of which the advice is made: may the method be the best, and is it within the margin of the best? The
interval for a method minus the best of the others follows from the simultaneous intervals of all pairs (multiple
comparisons with the best: Hsu 1996, chapter 4). That a method is at most the margin worse than every other is an
intersection-union test (Berger 1982), Holm-corrected over methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.records import Record, find, is_significant
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
    """Return a record for each method with its difference from the best of the others; none for a method that lacks
    tests (see `comparable`).

    The interval is simultaneous over all pairs, at their level. p is that of the hypothesis that the method is worse
    than some other by the margin or more.

    Args:
        pairs: (pairs, 2) indices into `methods`.
        effect, half, error, df: (pairs,) difference (first minus second), half-width of its simultaneous interval,
            standard error and degrees of freedom; NaN for a pair that cannot be tested.
    """
    untested = [(methods[i], methods[j]) for (i, j), width in zip(pairs, half, strict=True) if not np.isfinite(width)]
    names = comparable(methods, untested)
    kept = np.array([name in names for name in methods])
    if kept.sum() < 2:
        return []
    among = kept[pairs].all(axis=1)
    worse = worse_by_margin(pairs[among], effect[among], error[among], df[among], margin, len(methods))
    records = []
    for index in np.flatnonzero(kept):
        first = pairs[:, 0] == index
        own = among & (first | (pairs[:, 1] == index))
        difference = np.where(first, effect, -effect)[own]
        low, high = (difference - half[own]).min(), (difference + half[own]).min()
        records.append(
            Record(
                outcome=outcome,
                analysis=analysis,
                test=BEST,
                groups=(methods[int(index)],),
                p=float(worse[index]),
                effect=float(difference.min()),
                interval=(float(low), float(high)),
                n=int(own.sum()),
                note=f"n other methods; simultaneous interval; p: at most {points(margin)} worse than every other?",
            )
        )
    return holm_records(records)


def worse_by_margin(
    pairs: NDArray[np.int64], effect: Array, error: Array, df: Array, margin: float, methods: int
) -> Array:
    """Return for each method the p of the hypothesis that it is worse than some other by the margin or more.

    It is the greatest of the one-sided p of its pairs, and 1 if one of them cannot be tested.

    Args:
        pairs: (pairs, 2) indices of the methods.
        effect, error, df: (..., pairs) differences, first minus second, with their errors.

    Returns:
        (..., methods)
    """
    worst = np.zeros((*effect.shape[:-1], methods))
    for pair, (i, j) in enumerate(pairs):
        for method, sign in ((i, 1), (j, -1)):
            p = stats.t.sf((sign * effect[..., pair] + margin) / error[..., pair], df[..., pair])
            worst[..., method] = np.maximum(worst[..., method], np.nan_to_num(p, nan=1.0))
    return worst


def comparable(methods: Sequence[str], untested: Collection[tuple[str, str]]) -> list[str]:
    """Return the methods without those that lack tests, so that every pair of the rest is tested.

    The method with the most untested pairs is dropped first, of several the last one.
    """
    kept = list(methods)
    while missing := [pair for pair in untested if {*pair} <= {*kept}]:
        counts = Counter(name for pair in missing for name in pair)
        kept.remove(max(kept, key=lambda name: (counts[name], kept.index(name))))
    return kept


def contenders(records: Sequence[Record], analysis: str) -> list[str]:
    """Return the methods that may be the best: those that are not significantly worse than any other."""
    return [r.groups[0] for r in find(records, analysis=analysis, test=BEST) if r.interval and r.interval[1] > 0]


def within_margin(records: Sequence[Record], analysis: str, alpha: float = 0.05) -> list[str]:
    """Return the methods that are shown to be at most the margin worse than every other."""
    return [r.groups[0] for r in find(records, analysis=analysis, test=BEST) if is_significant(r, alpha)]
