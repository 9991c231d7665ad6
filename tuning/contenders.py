"""The best points of a study scored again with fresh seeds, and the final runs of the one that wins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from tuning.setting import FRESH_SEEDS, ROLES, Setting
from whichlora.fitting import Reports
from whichlora.queue import Queue
from whichlora.run import run
from whichlora.run import trial as run_trial
from whichlora.spec import canonical_digest

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from tuning.study import Study
    from whichlora.tracking import Tracker

KEPT = 3
"""So many of the best points are scored again, and the recommended one with them."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A point with its scores.

    Attributes:
        origin: "trial N", or the arm whose point it is.
        tuned: its value in the study; None for a point that was not in it.
        fresh: its values on the fresh seeds, those that are known.
    """

    origin: str
    point: Mapping[str, Any]
    tuned: float | None
    fresh: Sequence[float]

    @property
    def score(self) -> float:
        """Return the mean over the fresh seeds."""
        return mean(self.fresh) if self.fresh else float("-inf")


def contenders(study: Study) -> list[Contender]:
    """Return the best distinct points, or with two objectives the Pareto front, and the recommended point."""
    if study.setting.objective.cost is None:
        complete = study.trials(TrialState.COMPLETE)
        ordered = sorted(complete, key=lambda t: (-(t.value or 0.0), t.number))
    else:
        ordered = sorted(study.optuna.best_trials, key=lambda t: -t.values[0])
    points: dict[str, tuple[str, Mapping[str, Any], float | None]] = {}
    for trial in ordered:
        points.setdefault(_key(trial.params), (f"trial {trial.number}", trial.params, trial.values[0]))
    if study.setting.objective.cost is None:
        points = dict(list(points.items())[:KEPT])
    recommended = study.setting.known_points["recommended"]
    points.setdefault(_key(recommended), ("recommended", recommended, None))
    return [
        Contender(origin=origin, point=point, tuned=value, fresh=_fresh(study, point))
        for origin, point, value in points.values()
    ]


def score_again(study: Study, tracker: Tracker, database: RDBStorage) -> None:
    """Score the contenders with every fresh seed, together with all workers that do the same."""

    def do(point: Mapping[str, Any], seed: int, claimed: Tracker) -> None:
        # Reports that stop nothing: they have the objective's languages scored.
        reports = Reports(roles=ROLES[study.setting.objective.f1], per_epoch=1, report=lambda number, value: None)
        run_trial(study.setting.plan(point, seed), claimed, tags=_tags(study, seed), reports=reports)

    missing = [(c.point, seed) for c in contenders(study) for seed in FRESH_SEEDS if not _found(study, c.point, seed)]
    _share(f"{study.name}/fresh", missing, do, replace(tracker, parent=study.run_id), database)


def train_final(study: Study, best: Contender, seeds: Sequence[int], tracker: Tracker, database: RDBStorage) -> None:
    """Train and score the best point with the final seeds as ordinary runs that name their study."""

    def do(point: Mapping[str, Any], seed: int, claimed: Tracker) -> None:
        result = run(study.setting.plan(point, seed), claimed)
        tracker.client.set_tag(result.run_id, "whichlora.study", study.name)

    wanted = [(best.point, seed) for seed in seeds]
    _share(f"{study.name}/final/{canonical_digest(dict(best.point))[:12]}", wanted, do, tracker, database)


def _share(
    name: str,
    wanted: Sequence[tuple[Mapping[str, Any], int]],
    do: Callable[[Mapping[str, Any], int, Tracker], None],
    tracker: Tracker,
    database: RDBStorage,
) -> None:
    asked = time.time()
    queue = Queue(name, database)
    queue.offer([json.dumps({"point": dict(p), "seed": s}, sort_keys=True) for p, s in wanted], missing_at=asked)

    def work(cell: str, check: Callable[[], None]) -> None:
        content = json.loads(cell)
        do(content["point"], content["seed"], replace(tracker, claim=check))

    queue.work(work)


def _tags(study: Study, seed: int) -> dict[str, str]:
    return {"study": study.name, "trial": f"fresh {seed}"}


def _fresh(study: Study, point: Mapping[str, Any]) -> list[float]:
    found = [_found(study, point, seed) for seed in FRESH_SEEDS]
    return [study.setting.objective.values(metrics)[0] for metrics in found if metrics]


def _found(study: Study, point: Mapping[str, Any], seed: int) -> dict[str, float] | None:
    setting: Setting = study.setting
    fingerprint = setting.plan(point, seed).spec.fingerprint
    run = study.tracker.find("trial", status="FINISHED", fingerprint=fingerprint, **_tags(study, seed))
    return None if run is None else run.data.metrics


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)
