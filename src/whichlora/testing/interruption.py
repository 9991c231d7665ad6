"""Kills a run in a child process, to simulate the loss of a machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def kill_after_step(model: str | Path, step: int, options: Mapping[str, object]) -> None:
    """Carry out a small run in a child process and kill it with SIGKILL after `step` optimiser steps.

    The child saves a checkpoint after every step. It uses this process's tracking database, experiment `tests`, and
    module search path.

    Args:
        model: folder of the model.
        step: number of optimiser steps.
        options: options of the run that override those of `runs.SMALL`; `settings` are the variant's own.
    """
    texts = {name: json.dumps(value) if name == "settings" else value for name, value in options.items()}
    pairs = [f"{name}={text}" for name, text in texts.items()]
    command = [sys.executable, "-m", "whichlora.testing.stepwise", str(model), *pairs]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("step ") and int(line.split()[1]) >= step:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL, (
        f"the run ended before step {step} with status {child.returncode}; see its output above"
    )
