"""What is reported of targeted lexical injection (arXiv 2506.15415): how alike words and translations are.

The measures are those of the alignment probe, so that random pairs, the states without their language's mean and
retrieval stand beside the cosine that the paper reports. A rise of the cosine alone is no alignment: it also comes when
all words grow alike. `cosine/gap` is what is left of it without the random pairs'.
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
from whichlora.models.pooling import SITES

MEASURES = tuple(f"{place}/{measure}" for place in SITES for measure in translation_similarity.MEASURES)
TESTED = tuple(f"{place}/{measure}" for place in SITES for measure in ("cosine/translation/raw", "cosine/gap/centred"))
"""The paper's measure, and the one that random pairs and a language's mean have no part in."""


def measure_pairs(
    states: np.ndarray[Any, Any], items: Sequence[Item]
) -> tuple[list[str | None], dict[str, np.ndarray[Any, Any]]]:
    """Return the translation found for each word at the pooled layer, and each pair's value in each of `MEASURES`.

    `states` is (`SITES`, items, 2, width): of words and of their translations.
    """
    pairs = [_words(item) for item in items]
    values = [translation_similarity.compare(place, pairs) for place in states]
    found = translation_similarity.nearest(states[0][:, 0], states[0][:, 1])
    columns = dict(zip(MEASURES, np.concatenate(values, axis=1).T, strict=True))
    return [pairs[position][1] for position in found], columns


def pairs_table(
    items: Mapping[str, Sequence[Item]], before: Mapping[str, pd.DataFrame], after: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return a row a pair: set, id, word, translation, and each of `MEASURES` `before/` and `after/` the training.

    `items` and the predictions of the base model and of the trained one are by set: trained and control.
    """
    parts = []
    for name, own in items.items():
        words = pd.DataFrame([_words(item) for item in own], columns=["word", "translation"])
        for frame in (before[name], after[name]):
            assert list(frame["id"]) == [item.id for item in own]
        both = [
            frame[list(MEASURES)].add_prefix(prefix).reset_index(drop=True)
            for prefix, frame in (("before/", before[name]), ("after/", after[name]))
        ]
        parts.append(pd.concat([pd.DataFrame({"set": name, "id": [item.id for item in own]}), words, *both], axis=1))
    return pd.concat(parts, ignore_index=True)


def paired_metrics(table: pd.DataFrame) -> dict[str, float]:
    """Return `paired`'s statistics of each set and tested measure of a `pairs_table`, by name."""
    found = {
        f"paired/{name}/{measure}/{statistic}": value
        for name, own in table.groupby("set", sort=False)
        for measure in TESTED
        for statistic, value in paired(own[f"before/{measure}"], own[f"after/{measure}"]).items()
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def paired(before: Any, after: Any) -> dict[str, float]:
    """Return the mean rise with its 95 % interval, the paired t-test and Wilcoxon's signed-rank test, two-sided.

    Not finite where nothing changed. Pairs are taken as independent, which words of one list are only roughly.
    """
    first, second = np.asarray(before, float), np.asarray(after, float)
    test = stats.ttest_rel(second, first)
    interval = test.confidence_interval(0.95)
    moved = bool(np.any(first != second))
    return {
        "difference": float((second - first).mean()),
        "low": float(interval.low),
        "high": float(interval.high),
        "t": float(test.statistic),
        "p": float(test.pvalue),
        "wilcoxon_p": float(stats.wilcoxon(second, first).pvalue) if moved else math.nan,
    }


def _words(item: Item) -> tuple[str, str]:
    assert isinstance(item, PairItem)
    return item.word, item.translation
