"""The queue does each cell once and loses nothing when a worker dies. Uses real processes and a real database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from whichlora.scheduling.queue import ATTEMPTS, DEATHS, Queue, connect

WORKER = """
import os, sys, time
from whichlora.scheduling.queue import Queue, connect
url, log, seconds, cells = *sys.argv[1:3], float(sys.argv[3]), sys.argv[4:]
def note(text):
    with open(log, "a") as file:
        file.write(f"{text} {os.getpid()}\\n")
def do(cell, check):
    note(f"begin {cell}")
    time.sleep(seconds)
    check()
    note(f"end {cell}")
queue = Queue("test", connect(url))
queue.offer(cells, completed=())
queue.work(do, poll=0.1)
"""
CELLS = [f"cell-{n}" for n in range(6)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def start(
    url: str, log: Path, *, seconds: float = 0.2, cells: list[str] = CELLS, **env: str
) -> subprocess.Popen[bytes]:
    """Start a worker for which the cells had no result when the test session began."""
    command = [sys.executable, "-c", WORKER, url, str(log), str(seconds), *cells]
    return subprocess.Popen(command, env={**os.environ, **env})


def ended(log: Path) -> Counter[str]:
    return Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith("end"))


def wait_for(log: Path, text: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists():
            for line in log.read_text().splitlines():
                if line.startswith(text):
                    return line
        time.sleep(0.05)
    raise AssertionError(f"{text!r} never came")


def test_cells_are_done_once_in_the_order_they_were_offered(url: str) -> None:
    queue, done = Queue("test", connect(url)), []
    queue.offer(CELLS)
    queue.offer(CELLS)  # waiting cells are not offered twice
    queue.work(lambda cell, check: done.append(cell))
    assert done == CELLS
    assert queue.states() == dict.fromkeys(CELLS, TrialState.COMPLETE)


def test_a_finished_cell_may_be_offered_again(url: str) -> None:
    queue, done = Queue("test", connect(url)), []
    for _ in range(2):
        queue.offer(["a"])
        queue.work(lambda cell, check: done.append(cell))
    assert done == ["a", "a"]


def test_a_cell_that_raises_is_retried_and_then_left_failed_while_others_continue(url: str) -> None:
    queue, tried = Queue("test", connect(url)), Counter[str]()

    def do(cell: str, check: object) -> None:
        tried[cell] += 1
        if cell == "bad" or (cell == "shaky" and tried[cell] == 1):
            raise RuntimeError("no luck")

    queue.offer(["bad", "shaky", "good"])
    queue.work(do)
    assert tried == {"bad": ATTEMPTS, "shaky": 2, "good": 1}
    states = queue.states()
    assert (states["bad"], states["shaky"], states["good"]) == (
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    )
    queue.offer(["bad"])
    queue.work(lambda cell, check: None)
    assert queue.states()["bad"] is TrialState.COMPLETE


def test_an_interrupted_cell_waits_for_the_next_worker(url: str) -> None:
    queue = Queue("test", connect(url))

    def interrupt(cell: str, check: object) -> None:
        raise KeyboardInterrupt

    queue.offer(["a"])
    with pytest.raises(KeyboardInterrupt):
        queue.work(interrupt)
    assert queue.states()["a"] is TrialState.WAITING


def test_a_waiting_trial_is_claimed_by_one_worker_only(url: str) -> None:
    """SQLite has no row locks, on which Optuna relies to claim a trial."""
    storages = [connect(url) for _ in range(4)]
    study = storages[0].create_new_study([StudyDirection.MINIMIZE], "claims")
    with ThreadPoolExecutor(len(storages)) as threads:
        for _ in range(12):
            trial = storages[0].create_new_trial(study, create_trial(state=TrialState.WAITING))
            barrier = Barrier(len(storages))

            def claim(storage: RDBStorage, trial: int = trial, barrier: Barrier = barrier) -> bool:
                barrier.wait()
                return storage.set_trial_state_values(trial, TrialState.RUNNING)

            assert sum(threads.map(claim, storages)) == 1


def test_processes_that_start_at_once_share_the_cells(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [start(url, log) for _ in range(3)]
    assert [worker.wait(120) for worker in workers] == [0, 0, 0]
    assert ended(log) == dict.fromkeys(CELLS, 1)


def test_another_worker_takes_over_the_cell_of_a_killed_worker_at_once(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    victim = start(url, log, seconds=60, cells=["a"])
    wait_for(log, "begin a")
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    began = time.monotonic()
    queue, done = Queue("test", connect(url)), []
    queue.offer(["a"])
    queue.work(lambda cell, check: done.append(cell))
    assert done == ["a"]
    assert time.monotonic() - began < 60  # less than the grace period of 120 s


@pytest.mark.slow
def test_a_cell_that_kills_its_workers_is_abandoned(url: str, tmp_path: Path) -> None:
    queue = Queue("test", connect(url))
    queue.offer(["a"])
    for death in range(DEATHS + 1):
        victim = start(url, tmp_path / f"log{death}", seconds=60, cells=["a"])
        wait_for(tmp_path / f"log{death}", "begin a")
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    queue.work(lambda cell, check: pytest.fail("tried more often than allowed"))
    assert queue.states()["a"] is TrialState.FAIL


@pytest.mark.slow
def test_a_worker_suspended_past_the_grace_period_loses_its_cell_and_continues(url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    sleeper = start(url, log, seconds=1.5, cells=["a", "b"], WHICHLORA_GRACE_SECONDS="4")
    wait_for(log, "begin a")
    sleeper.send_signal(signal.SIGSTOP)
    other = start(url, log, seconds=0.2, cells=["a", "b"], WHICHLORA_GRACE_SECONDS="4")
    assert other.wait(120) == 0
    assert ended(log) == {"a": 1, "b": 1}
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(120) == 0
    assert ended(log) == {"a": 1, "b": 1}  # the result of the suspended worker was rejected
