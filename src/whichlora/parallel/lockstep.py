"""Several runs of one process that take their training steps together, each in a thread of its own.

Only one thread works at a time: the turn is passed on where a run waits for the others before a training step, and
where it ends. Everything between two steps (a run's start, its validation, its scores) is done as if it were alone, so
nothing else of the program has to know of threads, and random states are set and used within one turn.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


_IDLE_SECONDS = 0.5
"""Between two tries where all that is left to do is to wait for another process."""
_NO_SLOT = -1
_current = threading.local()

Take = Callable[[list[Any]], "list[Tensor] | None"]
"""Takes one step for several batches. It returns the sum of losses of each, no losses if the pass failed (each run then
takes its step alone), or None if memory ran out."""


@dataclass
class _Slot:
    """What a thread of the convoy is at.

    Attributes:
        batch: of the step that it waits for; None while it works.
        loss: of that step, and `runs` how many took it in one pass; None if it was not done.
        absent: whether it waits for something that none of the convoy may be able to give.
        away: seconds in which others worked.
    """

    number: int
    batch: Any = None
    loss: Tensor | None = None
    runs: int = 1
    absent: bool = False
    ended: bool = False
    away: float = 0.0


class _Lockstep:
    def __init__(self, size: int) -> None:
        self.seats = [_Slot(number) for number in range(size)]
        self.stopped = False
        self._most = size
        self._turn = _NO_SLOT
        self._changed = threading.Condition()

    def set_out(self) -> None:
        """Give the first the turn, once there is a thread for each: a seat without one would keep it."""
        with self._changed:
            self._turn = 0
            self._changed.notify_all()

    def stop(self) -> bool:
        """Have each that gets the turn end, and say whether there is anything to wait for."""
        self.stopped = True
        with self._changed:
            self._changed.notify_all()  # an interrupt may have come before this was done
        return self._turn != _NO_SLOT

    def await_turn(self, seat: _Slot) -> None:
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._turn == seat.number)
        seat.absent = False
        seat.away += time.monotonic() - began
        if self.stopped:
            raise KeyboardInterrupt

    def pass_on(self, seat: _Slot) -> None:
        """Give the turn to the next that can work; where all wait for a step, to one of them, which then takes it."""
        others = [self.seats[(seat.number + k) % len(self.seats)] for k in range(1, len(self.seats) + 1)]
        alive = [other for other in others if not other.ended]
        able = [other for other in alive if other.batch is None and not other.absent]
        waiting = [other for other in alive if other.batch is not None]
        if alive and not able and not waiting:
            time.sleep(_IDLE_SECONDS)
        if alive:
            with self._changed:
                self._turn = (able or waiting or alive)[0].number
                self._changed.notify_all()

    def take_step(self, leader: _Slot, take: Take) -> None:
        """Take the step that all wait for, with as many at a time as fit."""
        waiting = [seat for seat in self.seats if seat.batch is not None]
        _synchronize()
        began = time.monotonic()
        self._take_step(waiting, take)
        _synchronize()
        seconds = time.monotonic() - began
        leader.away += seconds  # of which all have the same share
        for seat in waiting:
            seat.away -= seconds / len(waiting)
            seat.batch = None
        for seat in self.seats:
            seat.absent = False  # what one waits for may have come about

    def _take_step(self, waiting: list[_Slot], take: Take) -> None:
        while waiting and self._most > 1:
            part = waiting[: self._most]
            losses = take([seat.batch for seat in part if seat.batch is not None]) if len(part) > 1 else []
            if losses is None:
                self._most = len(part) // 2
                print(f"Out of memory with {len(part)} runs at once; going on with {self._most}.", file=sys.stderr)
                continue
            for seat, loss in zip(part, losses, strict=False):
                seat.loss, seat.runs = loss, len(part)
            waiting = waiting[len(part) :]


def _synchronize() -> None:
    """Wait for what the accelerator was given, or it would fall to whoever waits next."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(count: int, work: Callable[[], None]) -> None:
    """Do `work` in so many threads that take their training steps together, until all have returned.

    An interrupt reaches each where it waits for its turn; a second one does not wait for them.

    Raises:
        what the first of them raised, once the others have returned too.
    """
    if count == 1:
        work()
        return
    convoy = _Lockstep(count)
    errors: list[BaseException] = []

    def ride(seat: _Slot) -> None:
        _current.convoy, _current.seat = convoy, seat
        try:
            convoy.await_turn(seat)
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            seat.ended, seat.batch = True, None
            convoy.pass_on(seat)

    threads = [threading.Thread(target=ride, args=(seat,), daemon=True) for seat in convoy.seats]
    try:
        for thread in threads:
            thread.start()
        convoy.set_out()
        _wait_for_all(threads)
    except KeyboardInterrupt:
        if convoy.stop():
            _wait_for_all(threads)
        raise
    if errors:
        raise errors[0]


def _wait_for_all(threads: Sequence[threading.Thread]) -> None:
    """Wait until all have ended, the last one's passing on included: Python must not exit in the middle of it.

    Not by joining threads: an interrupt that comes just before a join blocks is not noticed until the thread ends,
    which may wait for the interrupt; and an interrupted join takes its thread for ended.
    """
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)


def active() -> bool:
    """Whether this thread is one of a convoy."""
    return hasattr(_current, "convoy")


def others_active() -> bool:
    """Whether this thread is one of a convoy in which others have not ended: they, too, look for work."""
    return active() and any(not seat.ended for seat in _current.convoy.seats if seat is not _current.seat)


def step(batch: Any, take: Take) -> tuple[Tensor, int] | None:
    """Leave the gradients of a batch in its model, in one pass with the batches of the convoy's other runs.

    `take` does such a pass.

    Returns:
        the sum of its losses, and how many runs took the pass; None, and no gradients, where there is no other run, no
        memory for two, or a fault in the pass.
    """
    convoy: _Lockstep = _current.convoy
    seat: _Slot = _current.seat
    seat.batch, seat.loss = batch, None
    convoy.pass_on(seat)
    convoy.await_turn(seat)
    if seat.batch is not None:  # all wait
        convoy.take_step(seat, take)
    return None if seat.loss is None else (seat.loss, seat.runs)


def yield_turn() -> None:
    """Let the others work, as one that waits for what one of them, or another process, holds."""
    _current.seat.absent = True
    _current.convoy.pass_on(_current.seat)
    _current.convoy.await_turn(_current.seat)


def busy_seconds() -> float:
    """Return seconds that pass while this thread works; of a common step, an equal share for each run."""
    return time.monotonic() - (_current.seat.away if active() else 0.0)
