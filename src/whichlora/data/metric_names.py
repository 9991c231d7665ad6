"""The names of metrics as users read them."""

from __future__ import annotations

_NAMES = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "exact_match": "exact match",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
}


def metric_name(key: str) -> str:
    """Return the name of a metric, such as "macro F1" for `macro_f1`."""
    return _NAMES.get(key, key.replace("_", " "))
