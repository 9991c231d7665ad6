"""95 % confidence intervals of scores: over the items of a test set Wilson's for shares and otherwise bootstrap, and
over seeds Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from math import sqrt
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from whichlora.data.tasks.base import Task

RESAMPLES = 2000
"""Number of bootstrap samples of scores that are means over items."""
MIN_RESAMPLES, ITEMS = 100, 200_000
"""Minimum number of samples of other scores, and the number of items in all their samples above it."""
_ALPHA = 0.05
_CHUNK = 2_000_000

Answers = Sequence[str | None]
Gold = Sequence[tuple[str, ...]]


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's interval of a share of `n` items (Wilson 1927), which is not empty at 0 and 1.

    For a mean of scores between 0 and 1 it is conservative: their variance is at most that of a share.
    """
    from statsmodels.stats.proportion import proportion_confint  # takes a second to import

    low, high = proportion_confint(share * n, n, alpha=_ALPHA, method="wilson")
    return float(low), float(high)


def students_t(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's t interval of the mean of at least two values, such as the scores of seeds.

    As everywhere in the statistics of the project it is not cut at 0 and 1, and of values that do not vary it has no
    width.
    """
    from scipy.stats import t  # takes a second to import

    n, mean = len(values), fmean(values)
    half = float(t.ppf(1 - _ALPHA / 2, n - 1)) * stdev(values) / sqrt(n)
    return mean - half, mean + half


def interval(task: Task, predicted: Answers, gold: Gold, metric: str) -> tuple[float, float]:
    """Return the interval of a metric of the task; the same in every process.

    If the metric is the share of right answers, the interval is Wilson's. Otherwise it is that of the percentiles of
    bootstrap samples of items; if these do not differ, it is Wilson's too.
    """
    n, whole = len(gold), task.metrics(predicted, gold)[metric]
    values = np.array([task.metrics([p], [g])[metric] for p, g in zip(predicted, gold, strict=True)])
    is_mean = abs(values.mean() - whole) < 1e-9
    if is_mean and np.isin(values, (0, 1)).all():
        return wilson(whole, n)
    rng = np.random.default_rng(0)
    samples = _means(values, rng) if is_mean else _resampled(task, predicted, gold, metric, rng)
    low, high = np.quantile(samples, (_ALPHA / 2, 1 - _ALPHA / 2))
    return (float(low), float(high)) if low < high else wilson(whole, n)


def _means(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the means of bootstrap samples of values, (RESAMPLES,)."""
    n = len(values)
    rows = max(1, _CHUNK // n)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([values[rng.integers(n, size=(size, n))].mean(axis=1) for size in sizes])


def _resampled(
    task: Task, predicted: Answers, gold: Gold, metric: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return a metric that is no mean over items, such as macro-F1, of bootstrap samples of items."""
    if metric == "chrf":
        return _chrf(predicted, gold, rng)
    n = len(gold)
    samples = []
    for _ in range(max(MIN_RESAMPLES, min(RESAMPLES, ITEMS // n))):
        chosen = rng.integers(n, size=n)
        samples.append(task.metrics([predicted[i] for i in chosen], [gold[i] for i in chosen])[metric])
    return np.array(samples)


def _chrf(predicted: Answers, gold: Gold, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the chrF of bootstrap samples of texts; the n-grams of each text are counted once."""
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    references = [list(stream) for stream in zip_longest(*gold)]
    counts = np.array(chrf._extract_corpus_statistics([text or "" for text in predicted], references))
    totals = (counts[rng.integers(len(counts), size=len(counts))].sum(axis=0) for _ in range(RESAMPLES))
    return np.array([chrf._compute_score_from_stats(total.tolist()).score / 100 for total in totals])
