"""`compare` with real runs: from data to an answer, killed at random moments, and in two processes at once."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from invented import in_another_folder
from moods import answer, start


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_with_the_answer_of_several_processes_at_once(moods: Path) -> None:
    """The latter are not interrupted, and one of them has two workers."""
    rng = random.Random(1)
    for _ in range(3):
        process = start()
        time.sleep(rng.uniform(8, 40))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start().wait(900) == 0
    interrupted = answer()
    assert {s["method"]: s["state"] for s in interrupted["standings"]}["VeRA"] == "dropped"

    in_another_folder(moods / "together")
    processes = [start(), start("--workers", "2")]
    assert [process.wait(900) for process in processes] == [0, 0]
    assert answer() == interrupted
