"""`benchmarks/gpu.sh` on a CPU, with a tiny model: every part is measured and written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS
from benchmarks.workers import ROOT

SCRIPT = str(ROOT / "benchmarks" / "gpu.sh")


@pytest.mark.slow
def test_the_script_for_a_gpu_measures_every_part_and_writes_it(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = [SCRIPT, "--output", str(tmp_path), "--shapes", "tiny", "--device", "cpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    logs = "".join(path.read_text()[-2000:] for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + logs
    parts = [line.partition(":")[0] for line in (tmp_path / "parts.txt").read_text().splitlines()]
    of_shape = [f"{part}-tiny" for part in ("model", *PARTS)]
    assert sorted(parts) == sorted(["tests", "packed", *of_shape])
    results = {r["part"]: r for r in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert results.keys() == PARTS.keys()
    assert all(results[part]["ratio"] > 0 for part in ("training-bf16", "training-nf4", "scoring"))
    assert results["run"]["resumed_from"].startswith("checkpoint-")


@pytest.mark.slow
def test_the_script_for_a_gpu_is_cut_off_in_time_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([SCRIPT, "--shape", "tiny"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("error: --shape: allowed are")) == (2, True)
    command = [SCRIPT, "--output", str(tmp_path), "--shapes", "tiny", "--device", "cpu", "--minutes", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (tmp_path / "parts.txt").read_text().splitlines() == ["tests: no time left", "model-tiny: no time left"]
