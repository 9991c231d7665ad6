"""Describes the machine, and measures the speed of its matrix products."""

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

from benchmarks.harness import CLOCKS, timed
from whichlora.models.kernels.onednn import matmul_transposed

SIDE, REPEATS = 2048, 5
PACKAGES = ("torch", "transformers", "peft", "accelerate")


def describe(peer_python: str | None) -> dict[str, Any]:
    """Return processor, memory and versions of the machine, for the table."""
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
    """Return the GFLOP/s of a product of two 2048 x 2048 matrices, by precision and clock.

    In fp32 it is the faster of torch's default and this project's kernel.
    """
    gflops: dict[str, dict[str, float]] = {}
    multiply = functional.linear
    for name, dtype, kernels in (
        ("fp32", torch.float32, (multiply, matmul_transposed)),
        ("bf16", torch.bfloat16, (multiply,)),
    ):
        a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
        products = [timed(partial(kernel, a, b)) for kernel in kernels]
        measured = min(([product() for _ in range(REPEATS + 1)][1:] for product in products), key=_median_wall)
        divisors = {"wall": 1, "cpu": threads}
        seconds = {clock: median(m[clock] for m in measured) / divisors[clock] for clock in CLOCKS}
        gflops[name] = {clock: 2e-9 * SIDE**3 / seconds[clock] for clock in CLOCKS}
    return gflops


def _median_wall(measured: list[dict[str, float]]) -> float:
    return median(seconds["wall"] for seconds in measured)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
