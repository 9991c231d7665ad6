"""OpenMP's threads in real processes: how many torch takes, and how they wait at barriers."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from whichlora import cores

COMMAND = """
import importlib, json, os, sys
from whichlora.__main__ import COMMANDS
from whichlora.command_line import exit_with
affinity = json.loads(sys.argv[1])
os.sched_setaffinity(0, affinity)
for module, _ in COMMANDS.values():
    importlib.import_module(module)
assert "torch" not in sys.modules, "OpenMP has read its variables before they are set"

def main():
    import torch
    from whichlora.cores import worker_variables
    print(json.dumps([torch.get_num_threads(), worker_variables(2)]))
    return 0

exit_with(main)
"""
ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def started(affinity: list[int], **variables: str) -> tuple[list[Any], dict[str, str]]:
    """Return what the process prints, and the settings that its OpenMP shows."""
    own = {k: v for k, v in os.environ.items() if k not in (cores.THREADS, "MKL_NUM_THREADS", *cores.WAITING)}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, json.dumps(affinity)],
        env=own | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_DISPLAY_ENV": "VERBOSE"} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    shown = [line.partition(" = ") for line in done.stderr.splitlines() if " = " in line]
    settings = {name.split()[-1]: value.strip("'") for name, _, value in shown}
    return json.loads(done.stdout), settings


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch has another OpenMP elsewhere")
@pytest.mark.parametrize(
    ("affinity", "variables", "threads", "workers", "spins"),
    [
        (ALLOWED[:1], {}, 1, {"OMP_NUM_THREADS": "1"}, cores.SPINS),
        (ALLOWED, {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}, 1, {}, "0"),
        (ALLOWED[:1], {"GOMP_SPINCOUNT": "77"}, 1, {"OMP_NUM_THREADS": "1"}, "77"),
    ],
)
def test_threads_are_those_granted_and_what_the_user_sets_is_kept(
    affinity: list[int], variables: dict[str, str], threads: int, workers: dict[str, str], spins: str
) -> None:
    (taken, of_worker), settings = started(affinity, **variables)
    assert taken == threads
    assert of_worker == workers
    assert settings["GOMP_SPINCOUNT"] == spins


@pytest.mark.parametrize(
    ("process", "files", "granted"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/job/step\n", {"job/cpu.max": "200000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2.0),
        ("0::/docker/of-the-host\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("4:memory:/a\n1:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "9\n"}, math.inf),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("1:memory:/a\n", {"cpu/a/cpu.cfs_quota_us": "1\n", "cpu/a/cpu.cfs_period_us": "1\n"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_a_quota_is_that_of_the_group_or_of_one_above_it(
    process: str, files: dict[str, str], granted: float, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / name).write_text(text)
    (tmp_path / "self").write_text(process)
    assert cores.quota(tmp_path / "cgroup", tmp_path / "self") == granted


def test_a_quota_limits_threads_and_those_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (cores.THREADS, *cores.WAITING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cores, "_allowed", lambda: 8)
    monkeypatch.setattr(cores, "_chosen", {})
    monkeypatch.setattr(cores, "quota", lambda: 3.2)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1")
    cores.configure()
    assert os.environ[cores.THREADS] == "4"
    assert cores.worker_variables(2) == {cores.THREADS: "2"}  # not that of this process, which the user has not set
    assert cores.worker_variables(9) == {cores.THREADS: "1"}
    monkeypatch.setenv(cores.THREADS, "7")
    assert cores.worker_variables(2) == {}
