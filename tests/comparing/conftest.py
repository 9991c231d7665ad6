"""A task of which real runs take a second, and an experiment on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from moods import write_experiment, write_task


@pytest.fixture
def moods_task(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the task, where runs store a checkpoint at every opportunity."""
    monkeypatch.setenv("WHICHLORA_CHECKPOINT_SECONDS", "0")
    write_task(store)
    return store


@pytest.fixture
def moods(moods_task: Path, tiny_model: str) -> Path:
    """A folder with the task and an experiment on it, to compare its methods."""
    write_experiment(moods_task, tiny_model)
    return moods_task
