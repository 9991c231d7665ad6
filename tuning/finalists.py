"""The best points of a study scored again with fresh seeds, and the final runs of the one that wins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from tuning.study_config import FRESH_SEEDS, ROLES, StudyConfig
from whichlora.run.pipeline import run
from whichlora.run.pipeline import trial as run_trial
from whichlora.scheduling.queue import Queue, connect
from whichlora.training.fit import PruningReports

if TYPE_CHECKING:
    from tuning.optuna_study import Study
    from whichlora.config.plan import Plan
    from whichlora.tracking.runs import Tracker

RECOMMENDED, MATCHED = "recommended", "matched"
KEPT = 3
"""So many of the best points are scored again, and the known ones with them: a known point may have had bad luck on the
tuning seed, and what is called best shall not be worse than what one has without tuning."""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A point with its scores.

    Attributes:
        origin: "trial N"; "matched", where that point is none of the best; or "recommended": the whole arm of that
            name, with the method's own batch and schedule.
        point: the values in the study's dimensions.
        tuned: its value in the study; None for the recommended arm, and for a point that was not completed.
        fresh: its values on the fresh seeds, those that are known.
        seconds: what the training for these took.
    """

    origin: str
    point: Mapping[str, Any]
    tuned: float | None = None
    fresh: Sequence[float] = ()
    seconds: float = 0.0

    @property
    def recommended(self) -> bool:
        """Whether it is the recommended arm."""
        return self.origin == RECOMMENDED

    @property
    def score(self) -> float:
        """Return the mean over the fresh seeds."""
        return mean(self.fresh) if self.fresh else float("-inf")

    def plan(self, setting: StudyConfig, seed: int) -> Plan:
        """Return its run with a seed."""
        return setting.recommended(seed) if self.recommended else setting.plan(self.point, seed)


def finalists(study: Study) -> list[Finalist]:
    """Return the best distinct points, or with two objectives the Pareto front, and the known values beside them."""
    alone = study.setting.objective.cost is None
    complete = study.trials(TrialState.COMPLETE)
    front = complete if alone else study.optuna.best_trials
    found: dict[str, Finalist] = {}
    for trial in sorted(front, key=lambda t: (-t.values[0], t.number)):
        contender = Finalist(origin=f"trial {trial.number}", point=trial.params, tuned=trial.values[0])
        found.setdefault(_run(study, contender, FRESH_SEEDS[0]), contender)
    best = list(found.items())[: KEPT if alone else None]
    point = study.setting.known_points.get(MATCHED)
    if point is not None and point in study.setting.space:
        matched = Finalist(origin=MATCHED, point=point)
        own = _run(study, matched, FRESH_SEEDS[0])
        if own not in dict(best):
            value = found[own].tuned if own in found else None
            best.append((own, replace(matched, tuned=value)))
    points = study.setting.known_points
    known = [Finalist(origin=RECOMMENDED, point=points[RECOMMENDED])] if RECOMMENDED in points else []
    return [_scored(study, c) for c in (*(c for _, c in best), *known)]


def score_again(study: Study, tracker: Tracker, *, stop: Callable[[], bool], pack: int = 1) -> None:
    """Score the contenders with every fresh seed, with all workers that do the same, until `stop()`."""
    by_origin = {contender.origin: contender for contender in finalists(study)}
    name = study.setting.variant.name

    def do(cell: str, claimed: Tracker) -> None:
        origin, seed = json.loads(cell)
        # A report that stops nothing: it has the objective's languages scored.
        reports = PruningReports(roles=ROLES[study.setting.objective.f1], times=1, report=lambda number, value: None)
        plan = by_origin[origin].plan(study.setting, seed)
        metrics = run_trial(plan, claimed, tags=_tags(study, seed), reports=reports).metrics
        print(f"{name} {origin}, fresh seed {seed}: {study.setting.objective.values(metrics)[0]:.4f}", flush=True)

    missing = [
        json.dumps([origin, seed])
        for origin, contender in by_origin.items()
        for seed in FRESH_SEEDS
        if _metrics(study, contender, seed) is None
    ]
    if missing and not stop():
        what = f"{len(missing)} more trainings with fresh seeds, of {len(by_origin)} contenders"
        print(f"{name}: {what}{study.work(len(missing))}", flush=True)
    _share(f"{study.name}/fresh", missing, do, replace(tracker, parent=study.run_id), stop, pack)


def train_final(
    study: Study, best: Finalist, seeds: Sequence[int], tracker: Tracker, *, stop: Callable[[], bool], pack: int = 1
) -> list[str]:
    """Train and score the best point with the final seeds as ordinary runs that name their study.

    Returns:
        what is missing in the end.
    """

    def do(cell: str, claimed: Tracker) -> None:
        result = run(best.plan(study.setting, int(cell)), claimed)
        tracker.client.set_tag(result.run_id, "whichlora.study", study.name)

    def missing() -> list[int]:
        every = {seed: _run(study, best, seed) for seed in seeds}
        return [seed for seed, own in every.items() if not tracker.find("run", status="FINISHED", fingerprint=own)]

    name = f"{study.name}/final/{_run(study, best, FRESH_SEEDS[0])[:12]}"
    _share(name, [str(seed) for seed in missing()], do, tracker, stop, pack)
    return [f"{study.name}: no final run with seed {seed}" for seed in missing()]


def _share(
    name: str,
    missing: Sequence[str],
    do: Callable[[str, Tracker], None],
    tracker: Tracker,
    stop: Callable[[], bool],
    pack: int,
) -> None:
    """Do the missing cells of a queue with any other workers."""
    asked = time.time()
    queue = Queue(name, connect())
    queue.offer(missing, missing_at=asked)
    queue.work(lambda cell, check: do(cell, replace(tracker, claim=check)), stop=stop, pack=pack)


def _tags(study: Study, seed: int) -> dict[str, str]:
    return {"study": study.name, "trial": f"fresh {seed}"}


def _run(study: Study, contender: Finalist, seed: int) -> str:
    """Return the fingerprint of a contender's run: equal points may be written differently, as 16 and 16.0."""
    return contender.plan(study.setting, seed).spec.fingerprint


def _scored(study: Study, contender: Finalist) -> Finalist:
    """Return a contender with what is known of its scores."""
    found = [metrics for seed in FRESH_SEEDS if (metrics := _metrics(study, contender, seed))]
    return replace(
        contender,
        fresh=[study.setting.objective.values(metrics)[0] for metrics in found],
        seconds=sum(metrics["train/seconds"] for metrics in found),
    )


def _metrics(study: Study, contender: Finalist, seed: int) -> dict[str, float] | None:
    own = _run(study, contender, seed)
    found = study.tracker.find("trial", status="FINISHED", fingerprint=own, **_tags(study, seed))
    return None if found is None else found.data.metrics
