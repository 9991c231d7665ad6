"""Kills a run in a child process, as a lost machine would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def kill_after_step(model: str | Path, step: int, options: Mapping[str, object]) -> None:
    """Carry out a small run in a child process and kill it with SIGKILL after `step` optimiser steps.

    The child saves a checkpoint after every step. It tracks the run where this process does, in the experiment
    `tests`, and finds packages where this process does.
    """
    pairs = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "whichlora.testing.stepwise", str(model), *pairs]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step ") and int(line.split()[1]) >= step:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL, (
        f"the run ended before step {step} with status {child.returncode}; see its messages above"
    )
