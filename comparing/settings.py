"""The settings with which methods are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.config.options import RunOptions


def settings_of(methods: Mapping[str, Sequence[RunOptions]]) -> dict[str, Mapping[str, Any]]:
    """Return the options of `run`, by method, that replace those of its arm: none, each is compared as its arm says.

    Args:
        methods: the options of each method's runs with the first seed, one for each language and ratio.
    """
    return {method: {} for method in methods}
