"""Runs several training runs of one process in lockstep: one thread per run, optimiser steps computed together.

Only one thread works at a time. The turn passes to another thread when a run waits for the others before a training
step, is blocked on a lock, or ends. Everything between two steps (setup, validation, scoring) executes as in a single
run, so no other module has to be thread-safe, and random states are set and used within one turn.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from whichlora import termination

if TYPE_CHECKING:
    from torch import Tensor

_IDLE_SECONDS = 0.5
"""Pause between two attempts while every remaining thread is blocked on another process."""
_NO_TURN = -1
_current = threading.local()

JointPass = Callable[[list[Any]], "list[Tensor] | None"]
"""Computes the gradients of several batches in one pass. Returns the summed loss of each batch; an empty list if the
pass failed (each run then takes its step alone); None if memory ran out."""


@dataclass
class _Slot:
    """The state of one thread.

    Attributes:
        batch: the batch of the step that the thread waits for; None while it works.
        loss: the summed loss of that batch; None if no joint pass computed it.
        runs: the number of runs in the joint pass that computed `loss`.
        blocked: whether the thread waits for a lock that another process may hold.
        idle_seconds: time in which other threads worked.
    """

    number: int
    batch: Any = None
    loss: Tensor | None = None
    runs: int = 1
    blocked: bool = False
    ended: bool = False
    idle_seconds: float = 0.0


class _Lockstep:
    """The slots of all threads, and whose turn it is."""

    def __init__(self, size: int) -> None:
        self.slots = [_Slot(number) for number in range(size)]
        self.stopped = False
        self._max_runs = size
        self._turn = _NO_TURN
        self._changed = threading.Condition()

    def start(self) -> None:
        """Give the first slot the turn. Call once every thread exists: a slot without one would keep the turn."""
        with self._changed:
            self._turn = 0
            self._changed.notify_all()

    def stop(self) -> bool:
        """Make each thread end at its next turn. Return whether the threads were started and must be awaited."""
        self.stopped = True
        with self._changed:
            self._changed.notify_all()  # an interrupt may have prevented the last notification
        return self._turn != _NO_TURN

    def await_turn(self, slot: _Slot) -> None:
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._turn == slot.number)
        slot.blocked = False
        slot.idle_seconds += time.monotonic() - began
        termination.check()
        if self.stopped and not termination.requested():  # else a training saves a checkpoint before it ends
            raise KeyboardInterrupt

    def pass_turn(self, slot: _Slot) -> None:
        """Pass the turn to the next runnable thread, or to one that takes the step if all threads wait for it."""
        others = [self.slots[(slot.number + k) % len(self.slots)] for k in range(1, len(self.slots) + 1)]
        alive = [other for other in others if not other.ended]
        runnable = [other for other in alive if other.batch is None and not other.blocked]
        waiting = [other for other in alive if other.batch is not None]
        if alive and not runnable and not waiting:
            time.sleep(_IDLE_SECONDS)
        if alive:
            with self._changed:
                self._turn = (runnable or waiting or alive)[0].number
                self._changed.notify_all()

    def take_step(self, leader: _Slot, joint_pass: JointPass) -> None:
        """Take the step that all threads wait for, with as many runs per pass as fit into memory."""
        waiting = [slot for slot in self.slots if slot.batch is not None]
        _synchronize()
        began = time.monotonic()
        self._take_step(waiting, joint_pass)
        _synchronize()
        seconds = time.monotonic() - began
        leader.idle_seconds += seconds  # the step is charged to all runs in equal shares
        for slot in waiting:
            slot.idle_seconds -= seconds / len(waiting)
            slot.batch = None
        for slot in self.slots:
            slot.blocked = False  # the lock may have been released meanwhile

    def _take_step(self, waiting: list[_Slot], joint_pass: JointPass) -> None:
        while waiting and self._max_runs > 1:
            part = waiting[: self._max_runs]
            losses = joint_pass([slot.batch for slot in part if slot.batch is not None]) if len(part) > 1 else []
            if losses is None:
                self._max_runs = len(part) // 2
                print(
                    f"Out of memory with {len(part)} runs at once; continuing with {self._max_runs}.", file=sys.stderr
                )
                continue
            for slot, loss in zip(part, losses, strict=False):
                slot.loss, slot.runs = loss, len(part)
            waiting = waiting[len(part) :]


def _synchronize() -> None:
    """Wait for queued CUDA kernels; otherwise their time would be charged to the next run that synchronises."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(count: int, work: Callable[[], None]) -> None:
    """Call `work` in `count` threads that take their training steps together, and return once all have ended.

    A signal stops each thread: in training after the step, otherwise at the next batch or turn.

    Raises:
        BaseException: the first exception that a thread raised, once the others have ended too.
    """
    if count == 1:
        work()
        return
    lockstep = _Lockstep(count)
    errors: list[BaseException] = []

    def thread_main(slot: _Slot) -> None:
        _current.lockstep, _current.slot = lockstep, slot
        try:
            lockstep.await_turn(slot)
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            slot.ended, slot.batch = True, None
            lockstep.pass_turn(slot)

    threads = [threading.Thread(target=thread_main, args=(slot,), daemon=True) for slot in lockstep.slots]
    try:
        for thread in threads:
            thread.start()
        lockstep.start()
        _wait_for_all(threads)
    except KeyboardInterrupt:
        if lockstep.stop():
            _wait_for_all(threads)
        raise
    if errors:
        raise errors[0]


def _wait_for_all(threads: Sequence[threading.Thread]) -> None:
    """Wait until all threads have ended, including the last `pass_turn`: Python must not exit in the middle of it.

    Polls instead of joining: an interrupt that arrives just before a join blocks goes unnoticed until the thread ends,
    and the thread may be waiting for that interrupt; an interrupted join also marks its thread as ended.
    """
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)


def active() -> bool:
    """Return whether this thread is one of several in lockstep."""
    return hasattr(_current, "lockstep")


def others_active() -> bool:
    """Return whether other threads in lockstep with this one are still running, and so look for work, too."""
    return active() and any(not slot.ended for slot in _current.lockstep.slots if slot is not _current.slot)


def step(batch: Any, joint_pass: JointPass) -> tuple[Tensor, int] | None:
    """Compute the gradients of a batch in one pass with the batches of the other runs in lockstep.

    Blocks until every runnable run has reached its step. One thread then calls `joint_pass` for all runs, which stores
    the gradients in the models.

    Returns:
        The summed loss of the batch and the number of runs in the pass; None, without gradients, if there is no other
        run, memory does not suffice for two, or the pass failed.
    """
    lockstep: _Lockstep = _current.lockstep
    slot: _Slot = _current.slot
    slot.batch, slot.loss = batch, None
    lockstep.pass_turn(slot)
    lockstep.await_turn(slot)
    if slot.batch is not None:  # no thread took the step yet, so all are waiting
        lockstep.take_step(slot, joint_pass)
    return None if slot.loss is None else (slot.loss, slot.runs)


def yield_turn() -> None:
    """Pass the turn on while blocked on a lock that another thread or process holds."""
    _current.slot.blocked = True
    _current.lockstep.pass_turn(_current.slot)
    _current.lockstep.await_turn(_current.slot)


def busy_seconds() -> float:
    """Return a clock in seconds that runs only while this thread works; a joint step counts in equal shares."""
    return time.monotonic() - (_current.slot.idle_seconds if active() else 0.0)
