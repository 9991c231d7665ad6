"""Sets how many threads OpenMP takes and how they wait; torch's OpenMP reads this once, when torch is imported.

At a barrier GNU's OpenMP, which torch's wheels for Linux contain, spins for some 3 ms before a thread sleeps. Beside
busy processes, threads that have finished thus keep the cores from the one that they wait for. `SPINS` is long enough
for the gaps between the short loops of a step, which are microseconds apart, and short beside the time for which the
kernel lets a process run. It changes no result. Other implementations, such as Intel's in conda's torch, ignore the
variable.

The number of threads does change the last digits of sums, so it depends only on what is granted to this process
(affinity and quota), not on how busy the machine is at the moment: a run must give the same numbers again.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables by which users choose how threads wait."""
SPINS = "10000"
"""Iterations for which a thread spins at a barrier, some tenth of a millisecond; GNU's default is 300,000."""
_CGROUPS = Path("/sys/fs/cgroup")
_chosen: dict[str, str] = {}


def configure() -> None:
    """Set OpenMP's variables for this process and its children, except those that the user has set.

    Call it before torch is imported. The number of threads is set only where a quota allows less than the cores that
    this process may run on; OpenMP itself takes one for each of those.
    """
    for name, value in waiting_variables().items():
        _choose(name, value)
    if THREADS not in os.environ and available() < _allowed():
        _choose(THREADS, str(available()))


def waiting_variables() -> dict[str, str]:
    """Return the variables that make threads wait briefly; none if the user has set how they wait."""
    return {} if any(name in os.environ for name in WAITING) else {"GOMP_SPINCOUNT": SPINS}


def available() -> int:
    """Return how many cores this process may use: those of its affinity, or fewer if its cgroup has a quota."""
    return math.ceil(min(_allowed(), max(1.0, quota())))


def worker_variables(workers: int) -> dict[str, str]:
    """Return the variables that give a worker its share of the cores; none if the user has set the threads."""
    given = os.environ.get(THREADS)
    if given is not None and given != _chosen.get(THREADS):
        return {}
    return {THREADS: str(max(1, available() // workers))}


def quota(root: Path = _CGROUPS, process: Path = Path("/proc/self/cgroup")) -> float:
    """Return the cores' worth of time that the cgroups of this process grant; infinite without a limit.

    The group itself and each one above it may have a limit (version 2: `cpu.max`, version 1: `cpu.cfs_quota_us`). In a
    container the paths of `process` may be those of the host; then the limit lies in `root`.
    """
    limits = [math.inf]
    for line in _read(process).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                limits.append(_limit(folder))
    return min(limits)


def _limit(folder: Path) -> float:
    """Return the limit of one cgroup in cores."""
    words = _read(folder / "cpu.max").split() or [
        *_read(folder / "cpu.cfs_quota_us").split(),
        *_read(folder / "cpu.cfs_period_us").split(),
    ]
    try:
        granted, period = map(int, words)
    except ValueError:  # "max", or no such files
        return math.inf
    return granted / period if granted > 0 and period > 0 else math.inf


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _allowed() -> int:
    """Return the number of cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose(name: str, value: str) -> None:
    os.environ[name] = _chosen[name] = value
