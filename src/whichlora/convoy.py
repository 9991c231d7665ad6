"""Several runs of one process that take their training steps together, each in a thread of its own.

Only one thread works at a time: the turn is passed on where a run waits for the others before a training step, and
where it ends. Everything between two steps (a run's start, its validation, its scores) is done as if it were alone, so
nothing else of the program has to know of threads, and random states are set and used within one turn.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from whichlora.joint import Batch, leave_gradients
from whichlora.memory import fits

_place = threading.local()


@dataclass
class _Seat:
    """What a thread of the convoy is at.

    Attributes:
        batch: of the step that it waits for; None while it works.
        loss: of that step; None if it was not done.
        away: seconds in which others worked.
    """

    number: int
    batch: Batch | None = None
    loss: Tensor | None = None
    error: BaseException | None = None
    ended: bool = False
    away: float = 0.0


class _Convoy:
    def __init__(self, size: int) -> None:
        self.seats = [_Seat(number) for number in range(size)]
        self._most = size
        self._turn = 0
        self._changed = threading.Condition()

    def await_turn(self, seat: _Seat) -> None:
        began = time.monotonic()
        with self._changed:
            self._changed.wait_for(lambda: self._turn == seat.number)
        seat.away += time.monotonic() - began

    def pass_on(self, seat: _Seat) -> None:
        """Give the turn to the next that can work; where all wait for a step, to one of them, which then takes it."""
        others = [self.seats[(seat.number + k) % len(self.seats)] for k in range(1, len(self.seats) + 1)]
        alive = [other for other in others if not other.ended]
        following = next((other for other in alive if other.batch is None), alive[0] if alive else None)
        if following is not None:
            with self._changed:
                self._turn = following.number
                self._changed.notify_all()

    def take_step(self, leader: _Seat) -> None:
        """Take the step that all wait for, with as many at a time as fit."""
        waiting = [seat for seat in self.seats if seat.batch is not None]
        began = time.monotonic()
        try:
            self._take_step(waiting)
        except BaseException as error:
            for seat in waiting:
                seat.error = error
        seconds = time.monotonic() - began
        leader.away += seconds  # of which all have the same share
        for seat in waiting:
            seat.away -= seconds / len(waiting)
            seat.batch = None

    def _take_step(self, waiting: list[_Seat]) -> None:
        while waiting and self._most > 1:
            part = waiting[: self._most]
            batches = [seat.batch for seat in part if seat.batch is not None]
            losses: list[Tensor | None] = []
            if len(part) == 1:
                losses.append(None)
            if losses or fits(partial(_take, batches, losses)):
                for seat, loss in zip(part, losses, strict=True):
                    seat.loss = loss
                waiting = waiting[len(part) :]
                continue
            for batch in batches:
                for parameter in batch.model.parameters():
                    parameter.grad = None
            self._most = len(part) // 2
            print(f"Out of memory with {len(part)} runs at once; going on with {self._most}.", file=sys.stderr)


def _take(batches: list[Batch], losses: list[Tensor | None]) -> None:
    losses.extend(leave_gradients(batches))


def run(count: int, work: Callable[[], None]) -> None:
    """Do `work` in so many threads that take their training steps together, until all have returned.

    Raises:
        what the first of them raised, once the others have returned too.
    """
    if count == 1:
        work()
        return
    convoy = _Convoy(count)
    errors: list[BaseException] = []

    def ride(seat: _Seat) -> None:
        _place.convoy, _place.seat = convoy, seat
        convoy.await_turn(seat)
        try:
            work()
        except BaseException as error:
            errors.append(error)
        finally:
            seat.ended = True
            convoy.pass_on(seat)

    threads = [threading.Thread(target=ride, args=(seat,), daemon=True) for seat in convoy.seats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def inside() -> bool:
    """Whether this thread is one of a convoy."""
    return hasattr(_place, "convoy")


def size() -> int:
    """Return how many threads this thread's convoy set out with."""
    return len(_place.convoy.seats)


def accompanied() -> bool:
    """Whether this thread is one of a convoy in which others have not ended: they, too, look for work."""
    return inside() and any(not seat.ended for seat in _place.convoy.seats if seat is not _place.seat)


def step(batch: Batch) -> Tensor | None:
    """Leave the gradients of a batch in its model, in one pass with the batches of the convoy's other runs.

    Returns:
        the sum of its losses; None, and no gradients, where there is no other run or no memory for two.
    """
    convoy: _Convoy = _place.convoy
    seat: _Seat = _place.seat
    seat.batch, seat.loss, seat.error = batch, None, None
    convoy.pass_on(seat)
    convoy.await_turn(seat)
    if seat.batch is not None:  # all wait
        convoy.take_step(seat)
    if seat.error is not None:
        raise seat.error
    return seat.loss


def clock() -> float:
    """Return seconds that pass while this thread works; of a common step, an equal share for each run."""
    return time.monotonic() - (_place.seat.away if inside() else 0.0)
