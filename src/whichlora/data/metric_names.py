"""The names and scales of metrics as users read them, and the order in which a run logs them."""

from __future__ import annotations

from collections.abc import Mapping

from whichlora.text_tables import POINTS, SHARES, Scale

WORDS_RETRIEVED, SENTENCES_RETRIEVED = "pooled/p1/to/centred", "p1/to/raw"
"""The measures of word pairs and of sentences whose means are their P@1: the columns of tables of predictions."""

_NAMES = {
    "f1": "F1",
    "p1": "P@1",
    "macro_f1": "macro F1",
    "exact_match": "exact match",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
    "control_f1": "F1 of the control",
    "adjusted_f1": "F1 adjusted for the control",
}


def scale_of(key: str) -> Scale:
    """Return the scale on which users read a headline metric: P@1 is a share of pairs, other scores are in points."""
    return SHARES if "p1" in key.split("/") else POINTS


def metric_name(key: str) -> str:
    """Return the name of a metric, such as "macro F1" for `macro_f1`."""
    return _NAMES.get(key, key.replace("_", " "))


def headline_first(metrics: Mapping[str, float], headline: str) -> dict[str, float]:
    """Return metrics in the order in which the MLflow UI lists them, which is that in which they are logged.

    The scores on test items come first, with their intervals, then gains, the base model's scores and shallow
    baselines, and then the rest.
    """

    def position(name: str) -> int:
        first, last = name.partition("/")[0], name.rpartition("/")[2]
        if first == "test" and last in (headline, f"{headline}_low", f"{headline}_high"):
            return 0
        return next((i for i, wanted in enumerate(("gain", "base", "floor"), 1) if first == wanted), 4)

    return {name: metrics[name] for name in sorted(metrics, key=position)}
