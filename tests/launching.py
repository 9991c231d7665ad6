"""Calls `mlflow run` as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]


def launch(folder: Path, *flags: str, environment: dict[str, str] | None = None, **options: str) -> tuple[int, str]:
    """Call `mlflow run` on the project from `folder`; return the exit status, and stdout followed by stderr."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", "")])
    parameters = [part for name, value in options.items() for part in ("-P", f"{name}={value}")]
    done = subprocess.run(
        ["mlflow", "run", str(PROJECT), *parameters, "--env-manager", "local", *flags],
        cwd=folder,
        env=own | {"PATH": path, "OMP_NUM_THREADS": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr
