"""The brackets of a study: which trainings it needs now, as a function of its trials alone.

A bracket begins with many points in the lowest rung. Once all of them have a result, the best quarter is trained on
four times as many items, and so on, up to one point on all items. The next bracket begins when that is done. So the
points depend neither on the number of workers nor on the order in which they finish, and a study that was killed goes
on like one that was not. Rungs in which no point has learned anything tell nothing, and later brackets begin above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from tuning.halving.promotion import LEARNED, ranked
from tuning.halving.proposals import ENOUGH, propose
from tuning.halving.rungs import Rungs
from tuning.retries import PLACE, given_up, started_trials
from tuning.space import Space


class Place(NamedTuple):
    """Where a training belongs; all are counted from 0. A point has the same slot in all rungs of its bracket."""

    bracket: int
    rung: int
    slot: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A training that a bracket needs: a point in a rung.

    Attributes:
        seed: the same in all rungs, so that the items of a rung are among those of the next.
        known: the arm of a known point.
    """

    place: Place
    point: dict[str, Any]
    seed: int
    known: str | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        """The user attributes of its trial."""
        known = {} if self.known is None else {"known": self.known}
        return {PLACE: list(self.place), "seed": self.seed, **known}


def place_of(trial: FrozenTrial) -> Place | None:
    """Return the place of a trial; None in a study without rungs."""
    return _place(trial) if PLACE in trial.user_attrs else None


def in_rung(trials: Iterable[FrozenTrial], rung: int) -> list[FrozenTrial]:
    """Return the trials of a rung, of all brackets; in a study without rungs all are in rung 0."""
    return [trial for trial in trials if (place := place_of(trial)) is None or place.rung == rung]


def n_points(trials: Iterable[FrozenTrial]) -> int:
    """Return the number of points that trials look at, of which one in several rungs counts once."""
    places = [place_of(trial) for trial in trials]
    return len({(place.bracket, place.slot) for place in places if place}) + places.count(None)


@dataclass(frozen=True)
class Brackets:
    """The brackets of one study.

    Attributes:
        rungs: the rungs of every bracket.
        space: the search space.
        known: points with which the first bracket begins and which reach its top rung in any case, by arm.
        name: decides, with the results of earlier brackets, which points are proposed.
        seed: the training seed of a point that is tried for the first time.
        since: trials with smaller numbers that were given up are tried again.
    """

    rungs: Rungs
    space: Space
    known: Mapping[str, dict[str, Any]]
    name: str
    seed: int
    since: int = 0

    def missing(self, trials: Sequence[FrozenTrial], *, may_begin: Callable[[Sequence[int]], bool]) -> list[Entry]:
        """Return the trainings that are needed now and that no trial is waiting for, running or done with.

        Empty if others run the last trainings of a rung, or if no further bracket may begin.

        Args:
            trials: all trials of the study.
            may_begin: returns whether a new bracket may begin, by the costs of all brackets including this one, in
                trainings on all items.
        """
        placed = self._by_place(trials)
        firsts = [
            self._first_rung(bracket, placed) for bracket in range(max((p.bracket for p in placed), default=-1) + 1)
        ]
        rung = max((place.rung for place in placed if place.bracket == len(firsts) - 1), default=self.rungs.top)
        while firsts:
            if lacking := [e for e in self._entries(firsts, rung, placed) if e.place not in placed]:
                return lacking
            here = [trial for place, trial in placed.items() if place[:2] == (len(firsts) - 1, rung)]
            if not all(map(_settled, here)):
                return []
            if rung == self.rungs.top:
                break
            rung += 1
        firsts.append(self._first_rung(len(firsts), placed))
        fits = may_begin([self.rungs.number - first for first in firsts])
        return self._entries(firsts, firsts[-1], placed) if fits else []

    def _first_rung(self, bracket: int, placed: Mapping[Place, FrozenTrial]) -> int:
        """Return the rung that a bracket begins with: the lowest in which a point of earlier brackets has learned."""
        learned = {
            place.rung
            for place, trial in placed.items()
            if place.bracket < bracket and trial.state is TrialState.COMPLETE and trial.user_attrs.get(LEARNED)
        }
        return min(learned, default=self.rungs.top) if bracket else 0

    def _by_place(self, trials: Iterable[FrozenTrial]) -> dict[Place, FrozenTrial]:
        """Return the trial that counts for each place: complete, else waiting or running, else given up."""
        trials = list(trials)
        retried = {trial.number for trial in started_trials(trials)}
        placed: dict[Place, FrozenTrial] = {}
        for trial in trials:
            place = place_of(trial)
            if place is None:
                continue
            abandoned = given_up(trial) and trial.number >= self.since
            if trial.state is TrialState.FAIL and trial.number not in retried and not abandoned:
                continue
            earlier = placed.get(place)
            if earlier is None or _order(trial) < _order(earlier):
                placed[place] = trial
        return placed

    def _entries(self, firsts: Sequence[int], rung: int, placed: Mapping[Place, FrozenTrial]) -> list[Entry]:
        """Return the trainings of a rung of the last bracket, or none if there is a trial for each.

        Args:
            firsts: the first rung of each bracket.
            rung: the rung.
            placed: the trials by place.
        """
        bracket = len(firsts) - 1
        if rung > firsts[-1]:
            return self._promoted(bracket, rung, placed)
        if all(Place(bracket, rung, slot) in placed for slot in range(self.rungs.points(rung))):
            return []
        return self._proposed(bracket, rung, placed)

    def _proposed(self, bracket: int, rung: int, placed: Mapping[Place, FrozenTrial]) -> list[Entry]:
        """Return the points with which a bracket begins; those of the first include the known ones."""
        count = self.rungs.points(rung)
        first = list(self.known.items())[:count] if bracket == 0 else []
        earlier = [placed[place] for place in sorted(placed) if place.bracket < bracket]
        done = [trial for trial in earlier if trial.state is TrialState.COMPLETE]
        by_rung = [in_rung(done, each) for each in reversed(range(self.rungs.number))]
        history = next((trials for trials in by_rung if len(trials) >= ENOUGH), [])
        before = list({(_place(trial).bracket, _place(trial).slot): trial.params for trial in earlier}.values())
        tried = [*before, *(point for _, point in first)]
        new = propose(self.space, history, count - len(first), seed=f"{self.name}/{bracket}", tried=tried)
        points = [*first, *((None, point) for point in new)]
        entries: list[Entry] = []
        for slot, (arm, point) in enumerate(points):
            times = before.count(point) + [entry.point for entry in entries].count(point)
            entries.append(Entry(place=Place(bracket, rung, slot), point=point, seed=self.seed + times, known=arm))
        return entries

    def _promoted(self, bracket: int, rung: int, placed: Mapping[Place, FrozenTrial]) -> list[Entry]:
        """Return the points that rise to a rung: the best of the one below, and the known ones."""
        below = [placed[place] for place in sorted(placed) if place[:2] == (bracket, rung - 1)]
        best = ranked(trial for trial in below if trial.state is TrialState.COMPLETE)[: self.rungs.points(rung)]
        known = [trial for trial in below if "known" in trial.user_attrs and trial not in best]
        return [
            Entry(
                place=Place(bracket, rung, _place(trial).slot),
                point=trial.params or self.known[trial.user_attrs["known"]],
                seed=trial.user_attrs["seed"],
                known=trial.user_attrs.get("known"),
            )
            for trial in (*best, *known)
        ]


def _place(trial: FrozenTrial) -> Place:
    return Place(*trial.user_attrs[PLACE])


def _settled(trial: FrozenTrial) -> bool:
    """Return whether a trial has a result, or will have none."""
    return trial.state is TrialState.COMPLETE or given_up(trial)


def _order(trial: FrozenTrial) -> tuple[int, int]:
    """Return the key of the trial that counts for a place, which is the smallest."""
    states = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL)
    return states.index(trial.state), trial.number
