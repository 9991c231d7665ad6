"""Options of small studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_studies import FEW, SPACE


@pytest.fixture
def options(store: Path, tiny_model: str) -> dict[str, str]:
    """Options of small studies whose space contains the matched values but not the recommended ones."""
    (store / "space.yaml").write_text(SPACE)
    given: dict[str, Any] = {**FEW, "model": tiny_model, "space": "space.yaml", "variant": "lora", "trials": 3}
    return {name: str(value) for name, value in given.items()}
