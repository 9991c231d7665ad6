"""Signals end a process: at once, after the current step, or together with its parent."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest
from processes import heed_interrupts

HEAD = """
import os, signal, subprocess, sys, time
from whichlora import termination
from whichlora.command_line import exit_with

def wait(seconds=60):
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)
"""
IMMEDIATE = """
def main():
    wait()
exit_with(main)
"""
STEPWISE = """
termination.SAVE_SECONDS = float(sys.argv[1])
def main():
    with termination.deferred():
        wait(float(sys.argv[2]))
        print("requested" if termination.requested() else "not requested", flush=True)
    termination.check()
    return 0
exit_with(main)
"""
PARENT = """
def main():
    child = [sys.executable, "-c", sys.argv[1]]
    termination.workers.append(subprocess.Popen(child, env={**os.environ, termination.PARENT: str(os.getpid())}))
    with termination.deferred():
        wait()
exit_with(main)
"""


def start(body: str, *arguments: str, head: str = HEAD, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", head + body, *arguments]
    options = {"preexec_fn": heed_interrupts, **options}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
    assert child.stdout.readline() == "ready\n"
    return child


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_its_status_and_a_line(number: signal.Signals) -> None:
    child = start(IMMEDIATE)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 128 + number
    assert errors == f"Ended by {number.name}.\n"


def test_a_signal_that_the_command_was_started_to_ignore_stays_ignored() -> None:
    child = start(STEPWISE, "20", "1", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    child.send_signal(signal.SIGHUP)
    output, _ = child.communicate(timeout=30)
    assert (child.returncode, output) == (0, "not requested\n")


def test_a_step_is_finished_and_a_repeated_signal_counts_once() -> None:
    child = start(STEPWISE, "20", "1.5")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)  # a launcher passes on what the terminal already sent
    output, _ = child.communicate(timeout=30)
    assert output == "requested\n"
    assert child.returncode == 128 + signal.SIGINT


def test_a_step_that_takes_too_long_is_interrupted() -> None:
    child = start(STEPWISE, "0.5", "60")
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=20)
    assert (child.returncode, output, errors) == (128 + signal.SIGTERM, "", "Ended by SIGTERM.\n")


def test_a_second_signal_ends_a_command_and_its_workers_at_once() -> None:
    child = start(PARENT, HEAD + STEPWISE.replace("sys.argv[1]", "60").replace("sys.argv[2]", "60"))
    until(lambda: bool(psutil.Process(child.pid).children()))
    (worker,) = psutil.Process(child.pid).children()
    assert child.stdout.readline() == "ready\n"  # the worker's
    child.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    assert child.wait(10) == 128 + signal.SIGTERM
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 10)


def test_a_worker_ends_in_good_order_when_its_parent_is_killed() -> None:
    child = start(PARENT, HEAD + STEPWISE.replace("sys.argv[1]", "60").replace("sys.argv[2]", "5"))
    assert child.stdout.readline() == "ready\n"
    child.kill()
    output, errors = child.communicate(timeout=30)  # until the worker has closed them
    assert output == "requested\n"
    assert errors == "Ended by SIGTERM.\n"


def test_a_worker_leaves_repeated_signals_to_its_parent() -> None:
    child = start(STEPWISE, "60", "3", env={**os.environ, "WHICHLORA_PARENT": str(os.getpid())})
    child.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    child.send_signal(signal.SIGTERM)
    output, _ = child.communicate(timeout=30)
    assert (child.returncode, output) == (128 + signal.SIGTERM, "requested\n")


@pytest.mark.parametrize("number", [signal.SIGHUP, None], ids=["SIGHUP", "disowned"])
def test_a_command_whose_terminal_is_closed_can_still_finish_its_step(number: signal.Signals | None) -> None:
    terminal, end = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", HEAD + STEPWISE, "20", "1"], stdout=end, stderr=end)
    os.close(end)
    assert os.read(terminal, 100).startswith(b"ready")  # perhaps before the end of the line is written
    os.close(terminal)
    if number is not None:
        child.send_signal(number)
    assert child.wait(30) == (128 + number if number is not None else 0)
