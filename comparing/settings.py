"""The settings with which methods are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def settings_of(methods: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return the options of `run`, by method, that replace those of its arm: none, each is compared as its arm says."""
    return {method: {} for method in methods}
