"""Kills a run in a subprocess, and reads the predictions of a run."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd

CHILD = """
import sys, whichlora.training.callbacks as t
t.CHECKPOINT_SECONDS = 0.0
slow = t.CheckpointTimer.on_step_end
def on_step_end(self, args, state, control, **kwargs):
    slow(self, args, state, control, **kwargs)
    print("step", state.global_step, flush=True)
t.CheckpointTimer.on_step_end = on_step_end
sys.path.insert(0, sys.argv[1])
from runs import plan_of, run_of
run_of(plan_of(sys.argv[2], **dict(pair.split("=") for pair in sys.argv[3:])))
"""


def kill_after_step(store: Path, model: str, step: int, options: dict[str, object]) -> None:
    """Start a run in a subprocess and send it SIGKILL after `step` steps."""
    here = str(Path(__file__).parent)
    pairs = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-c", CHILD, here, model, *pairs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=store) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step ") and int(line.split()[1]) >= step:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL


def predictions_of(run_id: str, role: str) -> pd.DataFrame:
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="predictions")
    return pd.read_parquet(Path(folder) / f"{role}.parquet")
