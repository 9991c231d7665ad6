"""Measures the time from `make run` to the first training step, with the environment already installed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.harness import CLOCKS, Bench, Block, Result, Row
from benchmarks.workers import ROOT, worker_environment

START = Row(name="start", work="`make run` again, to its first training step", against="", goal=15, less=True)
STEPS = 5
SIZES = f"train_size={4 * STEPS} batch_size=4 validation_size=6 test_size=9"
_STEP = re.compile(rb"\b[1-5]/5 \[")
"""Matches the training progress bar after its first step; scoring bars have other totals."""


def measure(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Start runs and stop each after its first step; the first one creates the database and is not counted."""
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{bench.scratch / 'start.db'}",
        "WHICHLORA_WORK": str(bench.scratch / "start-work"),
    }
    measured: dict[str, list[float]] = {clock: [] for clock in CLOCKS}
    for number in range(bench.pairs + 1):
        seconds = _first_step(bench, variables, seed=number)
        print(f"  start {number}/{bench.pairs}: {seconds['wall']:.1f} s", file=sys.stderr, flush=True)
        for clock in CLOCKS:
            measured[clock] += [seconds[clock]] if number else []
    return [Result(row=START, ours=measured, theirs={}, notes=["The first step, of 4 items, is within the time."])]


def _first_step(bench: Bench, variables: dict[str, str], *, seed: int) -> dict[str, float]:
    installed = Path(sys.prefix) / ".installed"
    command = ["make", "run", f"VENV={sys.prefix}", f"PARAMS={SIZES} model={bench.model} seed={seed}"]
    command += ["--old-file", str(installed)]  # keep make from reinstalling the environment that this process uses
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=worker_environment(bench.threads) | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout
    output = b""
    try:
        while not _STEP.search(output):
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                raise RuntimeError(f"make run ended before its first step: {output.decode(errors='replace')[-2000:]}")
            output += chunk
        wall = time.perf_counter() - began
        parent = psutil.Process(process.pid)
        times = [p.cpu_times() for p in (parent, *parent.children(recursive=True))]
        return {"wall": wall, "cpu": sum(t.user + t.system + t.children_user + t.children_system for t in times)}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


BLOCKS = [Block(rows=[START], minutes=2, measure=measure)]
