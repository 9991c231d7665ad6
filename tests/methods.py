"""The adapters of the catalogue as test parameters: those that came last have slow cases, except for a few checks."""

from __future__ import annotations

from typing import Any

import pytest

from whichlora.variants import CATALOGUE, WIDER

ADAPTERS = [name for name, variant in CATALOGUE.items() if variant.has_adapter]
TRAINED = [name for name, variant in CATALOGUE.items() if variant.trains]
_NAMES = [variant.name for variant in WIDER]
LATEST = _NAMES[_NAMES.index("hybrid-lora") + 1 :]
"""Their declaration, what they attach to, their reloading and their witness are always checked, the rest as slow."""


def cases(names: list[str]) -> list[Any]:
    """Return the names as parameters of a test, those of `LATEST` marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in LATEST)) for name in names]
