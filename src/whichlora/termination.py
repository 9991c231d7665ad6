"""Ends a command on SIGINT, SIGTERM or SIGHUP: at once, or during training after the current step, which is saved.

The first signal raises `Terminated` in the main thread. Within `deferred` it does not: the training loop asks
`requested` after each step, saves a checkpoint and raises `Terminated` itself. If no step ends within `SAVE_SECONDS`,
`Terminated` is raised without a checkpoint. A second signal ends the process and its workers at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import psutil

SAVE_SECONDS = 20.0
"""Time for the current step and its checkpoint; the 30 s that docker-compose.yml grants leave 10 to mark the run."""
PARENT = "WHICHLORA_PARENT"
"""Environment variable with the process id of the command that started this process as a worker."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REPEAT_SECONDS = 1.0
"""Two signals within this time count as one: a terminal and a launcher may both pass on the same Ctrl-C."""
_WATCH_SECONDS = 0.5

workers: list[subprocess.Popen[bytes]] = []
"""Running worker processes of this command, which a second signal kills."""
_thread = threading.local()


class Terminated(KeyboardInterrupt):
    """The command ends because of a signal. Libraries treat it as Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number
        super().__init__(signal.Signals(number).name)


class _Request:
    """The signal that asked this process to end.

    Attributes:
        handled: the signals that this process handles.
        terminals: the descriptors of the outputs that were terminals.
        number: the first signal; None before.
        time: when it arrived, in seconds of the monotonic clock.
        delivered: whether `Terminated` was raised.
        overdue: whether no step ended within `SAVE_SECONDS`.
        repeatable: whether a second signal ends this process at once; the parent decides that for workers.
        orphaned: whether the watched parent ended.
        on_launcher_death: called at the end of the process if the launcher has ended; None without one.
    """

    handled: Sequence[signal.Signals] = ()
    terminals: Sequence[int] = ()
    number: int | None = None
    time = 0.0
    delivered = False
    overdue = False
    repeatable = True
    orphaned = False
    on_launcher_death: Callable[[], object] | None = None


_request = _Request()


def install() -> None:
    """Handle the signals in this process, except those that it was started to ignore, as under nohup.

    A worker, and a process of `accelerate launch`, also ends when its parent does.
    """
    _request.handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    _request.terminals = [stream for stream in (1, 2) if os.isatty(stream)]
    restore()
    signal.signal(signal.SIGALRM, _on_alarm)
    parent = os.environ.pop(PARENT, None)
    if parent is not None or "TORCHELASTIC_RUN_ID" in os.environ:
        _request.repeatable = False
        watch_parent(int(parent) if parent else os.getppid())


def restore() -> None:
    """Handle again the signals that `install` handles, after a library has replaced the handlers."""
    for number in _request.handled:
        signal.signal(number, _on_signal)


def watch_parent(parent: int) -> None:
    """End this process, as SIGTERM does, when its parent or that one's parent, `parent`, ends or was killed."""
    first = os.getppid()

    def watch() -> None:
        while os.getppid() == first and (parent == first or _parent_of(first) == parent):
            time.sleep(_WATCH_SECONDS)
        _request.orphaned, _request.repeatable = True, False
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def watch_launcher(on_death: Callable[[], object]) -> None:
    """End this process when the launcher that started it, perhaps through bash, ends; `on_death` is called last."""
    parent = psutil.Process(os.getppid())
    watch_parent(parent.ppid() if parent.name() == "bash" else parent.pid)
    _request.on_launcher_death = on_death


def end() -> int:
    """Say why this process ends, and return its exit status."""
    reason = terminated()
    if _request.orphaned and _request.on_launcher_death is not None:
        with deferred():
            _request.on_launcher_death()
    print(f"Ended by {reason}.", file=sys.stderr)
    return reason.status


def requested() -> bool:
    """Return whether a signal asked this process to end."""
    return _request.number is not None


def terminated() -> Terminated:
    """Return the exception with which to end after the step; without a signal here, another process received it."""
    _request.delivered = True
    return Terminated(_request.number or signal.SIGTERM)


def check() -> None:
    """Raise `Terminated` if a signal arrived and this thread does not defer it, or has deferred it for too long.

    Raises:
        Terminated: The process is to end.
    """
    if requested() and (_request.overdue or not _deferring()):
        raise terminated()


@contextmanager
def deferred() -> Iterator[None]:
    """Let this thread finish the block, or call `requested` and end it, when a signal arrives."""
    with _deferral(True):
        yield


@contextmanager
def immediate() -> Iterator[None]:
    """Let a signal interrupt this block within a `deferred` one.

    Raises:
        Terminated: A signal arrived before.
    """
    with _deferral(False):
        check()
        yield


@contextmanager
def _deferral(wanted: bool) -> Iterator[None]:
    before = _deferring()
    _thread.deferring = wanted
    try:
        yield
    finally:
        _thread.deferring = before


def _deferring() -> bool:
    return getattr(_thread, "deferring", False)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _request.number is not None:
        if _request.repeatable and time.monotonic() - _request.time > _REPEAT_SECONDS:
            for worker in workers:
                worker.kill()
            os._exit(128 + number)
        return
    _request.number, _request.time = number, time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, SAVE_SECONDS)
    if number == signal.SIGHUP:  # the terminal is gone, and output to it would be an error
        for stream in _request.terminals:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if not _deferring():
        raise terminated()


def _on_alarm(number: int, frame: FrameType | None) -> None:
    _request.overdue = True
    if _deferring() and not _request.delivered:  # what ends already, such as marking a run, is not interrupted
        raise terminated()


def _parent_of(process: int) -> int | None:
    try:
        return psutil.Process(process).ppid()
    except psutil.NoSuchProcess:
        return None
