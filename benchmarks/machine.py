"""What the figures were measured on, and how fast its processor multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from torch.nn import functional

from benchmarks.harness import CLOCKS, timed_turn
from whichlora.models.kernels.onednn import matmul_transposed

SIDE, REPEATS = 2048, 5
PACKAGES = ("torch", "transformers", "peft", "accelerate")


def describe(peer_python: str | None) -> dict[str, Any]:
    """Return what the table says of the machine."""
    trl = None
    if peer_python:
        command = [peer_python, "-c", "from importlib.metadata import version; print(version('trl'))"]
        trl = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "trl": trl,
    }


def peak(threads: int) -> dict[str, dict[str, float]]:
    """Return GFLOP/s of a product of two matrices of 2048 x 2048, by precision and clock.

    In fp32 it is the quicker of what torch does by itself and what this project does.
    """
    found: dict[str, dict[str, float]] = {}
    multiply = functional.linear
    for name, dtype, among in (
        ("fp32", torch.float32, (multiply, matmul_transposed)),
        ("bf16", torch.bfloat16, (multiply,)),
    ):
        a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        ways = [timed_turn(partial(way, a, b)) for way in among]
        turns = min(([way() for _ in range(REPEATS + 1)][1:] for way in ways), key=_wall)
        busy = {"wall": 1, "cpu": threads}
        seconds = {clock: median(t[clock] for t in turns) / busy[clock] for clock in CLOCKS}
        found[name] = {clock: 2e-9 * SIDE**3 / seconds[clock] for clock in CLOCKS}
    return found


def _wall(turns: list[dict[str, float]]) -> float:
    return median(turn["wall"] for turn in turns)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
