"""Measures of a training that show whether it collapsed: one answer to all items, or a loss that does not fall."""

from __future__ import annotations

from collections import Counter
from statistics import mean

from whichlora.training.fit import TrainingRecord

_LAST_SHARE = 0.1
"""Share of the logged losses, at the end of the training, that the final loss is the mean of."""


def collapse_metrics(record: TrainingRecord) -> dict[str, float]:
    """Return the share of the most frequent answer on the validation items of each role, and the final training loss.

    A share near 1 belongs to a model that gives the same answer to all items.
    """
    metrics = {
        f"validation/{role}/most_frequent_share": Counter(answers).most_common(1)[0][1] / len(answers)
        for role, answers in record.predicted.items()
        if answers
    }
    last = record.losses[-max(1, round(_LAST_SHARE * len(record.losses))) :]
    return metrics | ({"train/final_loss": mean(loss for _, loss in last)} if last else {})
