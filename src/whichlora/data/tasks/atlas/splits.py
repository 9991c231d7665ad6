"""Assigns people and cities to splits."""

from __future__ import annotations

import hashlib

from whichlora.data.tasks.base import Split

_TRAIN_PERCENT, _VALIDATION_PERCENT = 50, 14


def split_of(kind: str, key: str) -> Split:
    """Return the split of a person or a city, by a hash of its key: 50% train, 14% validation, 36% test.

    Unlike shuffling, a hash leaves all other assignments unchanged when a name is added or a newer CLDR drops one.
    """
    percent = int(hashlib.sha256(f"atlas/{kind}/{key}".encode()).hexdigest(), 16) % 100
    if percent < _TRAIN_PERCENT:
        return "train"
    return "validation" if percent < _TRAIN_PERCENT + _VALIDATION_PERCENT else "test"
