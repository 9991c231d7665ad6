"""Evaluates targeted lexical injection (arXiv 2506.15415): similarity of words and translations, significance tests.

The measures are those of the alignment probe. The paper reports only the cosine of translations, which also rises if
all words become more similar; here the cosine of random pairs, centred states and retrieval are measured too.
`cosine/gap` is the cosine minus that of random pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from whichlora.data.tasks import Item
from whichlora.data.tasks.items import PairItem
from whichlora.evaluation import translation_similarity
from whichlora.evaluation.finite import check_states
from whichlora.models.pooling import SITES

MEASURES = tuple(f"{site}/{measure}" for site in SITES for measure in translation_similarity.MEASURES)
TESTED = tuple(f"{site}/{measure}" for site in SITES for measure in ("cosine/translation/raw", "cosine/gap/centred"))
"""The paper's measure, and the one corrected for random pairs and the mean of a language."""


def measure_pairs(
    states: np.ndarray[Any, Any], items: Sequence[Item], *, name: str = "words"
) -> tuple[list[str | None], dict[str, np.ndarray[Any, Any]]]:
    """Return the translation retrieved for each word at the pooled layer, and the values of `MEASURES` by name.

    `states` are those of words and their translations, (`SITES`, items, 2, width). The measures of random pairs are NaN
    if all pairs are the same.

    Raises:
        NonFiniteError: A state is not finite, or zero.
    """
    check_states(states.swapaxes(0, 1), items, name=name)
    pairs = [_words(item) for item in items]
    values = [translation_similarity.compare(site, pairs) for site in states]
    retrieved = translation_similarity.nearest(states[0][:, 0], states[0][:, 1])
    columns = dict(zip(MEASURES, np.concatenate(values, axis=1).T, strict=True))
    return [pairs[position][1] for position in retrieved], columns


def pairs_table(
    items: Mapping[str, Sequence[Item]], before: Mapping[str, pd.DataFrame], after: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return a row per pair: set, id, word, translation, and each of `MEASURES` `before/` and `after/` training.

    All arguments are keyed by set: trained and control.

    Args:
        items: the word pairs.
        before: `Scores.frame` of the base model.
        after: `Scores.frame` of the trained model.
    """
    parts = []
    for name, pairs in items.items():
        words = pd.DataFrame([_words(item) for item in pairs], columns=["word", "translation"])
        for frame in (before[name], after[name]):
            assert list(frame["id"]) == [item.id for item in pairs]
        columns = [
            frame[list(MEASURES)].add_prefix(prefix).reset_index(drop=True)
            for prefix, frame in (("before/", before[name]), ("after/", after[name]))
        ]
        parts.append(
            pd.concat([pd.DataFrame({"set": name, "id": [item.id for item in pairs]}), words, *columns], axis=1)
        )
    return pd.concat(parts, ignore_index=True)


def paired_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return the finite statistics of `paired` for each set and each of `TESTED`, by metric name; see `pairs_table`."""
    metrics = {
        f"paired/{name}/{measure}/{statistic}": value
        for name, pairs in table.groupby("set", sort=False)
        for measure in TESTED
        for statistic, value in paired(pairs[f"before/{measure}"], pairs[f"after/{measure}"]).items()
    }
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def paired(before: Any, after: Any) -> dict[str, float]:
    """Return the mean difference with its 95 % interval, the paired t-test and Wilcoxon's signed-rank test, two-sided.

    Test statistics are not finite if nothing changed. Pairs are treated as independent, which holds only approximately
    for words of one list.
    """
    first, second = np.asarray(before, float), np.asarray(after, float)
    test = stats.ttest_rel(second, first)
    interval = test.confidence_interval(0.95)
    changed = bool(np.any(first != second))
    return {
        "difference": float((second - first).mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "t": float(test.statistic),
        "p": float(test.pvalue),
        "wilcoxon_p": float(stats.wilcoxon(second, first).pvalue) if changed else math.nan,
    }


def _words(item: Item) -> tuple[str, str]:
    assert isinstance(item, PairItem)
    return item.word, item.translation
