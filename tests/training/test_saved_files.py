"""The files of a saved adapter."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from runs import plan_of, run_of


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_whoever_can_read_one_file_of_an_adapter_can_read_all(store: Path, tiny_model: str, variant: str) -> None:
    """safetensors writes weights that only their owner can read."""
    run_id = run_of(plan_of(tiny_model, variant=variant)).run_id
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter"))
    modes = {path.name: path.stat().st_mode for path in folder.iterdir() if path.is_file()}
    assert any(name.endswith(".safetensors") for name in modes)
    assert len(set(modes.values())) == 1, modes
