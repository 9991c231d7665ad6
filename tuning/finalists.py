"""Scores the best points of a study again with fresh seeds, and trains the winner with the final seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

from tuning.divergence import converged, run_diverged
from tuning.optuna_study import Study
from tuning.progress import time_left
from tuning.study_config import FRESH_SEEDS, ROLES, StudyConfig
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.run.pipeline import run
from whichlora.run.pipeline import trial as run_trial
from whichlora.scheduling.queue import Queue, connect
from whichlora.tracking.runs import Tracker
from whichlora.training.fit import PruningReports

RECOMMENDED, MATCHED = "recommended", "matched"
N_BEST = 3
"""Number of best points that are scored again, besides the known points.

Known points always are: one may have been unlucky on the tuning seed, and tuning must not end with a worse point.
"""


@dataclass(frozen=True, kw_only=True)
class Finalist:
    """A point that is scored again with fresh seeds.

    Attributes:
        origin: "trial N"; "matched" if that point is not among the best; or "recommended" for the whole arm of that
            name, with the method's own batch size and schedule.
        point: values by dimension of the study.
        tuned: F1 in the study; None for the recommended arm and for a point without a complete trial.
        fresh: F1 with each fresh seed that has been trained.
        diverged: number of fresh seeds with which training diverged; such a point is never the winner.
        seconds: total training time with the fresh seeds.
    """

    origin: str
    point: Mapping[str, Any]
    tuned: float | None = None
    fresh: Sequence[float] = ()
    diverged: int = 0
    seconds: float = 0.0

    @property
    def recommended(self) -> bool:
        """Whether this is the recommended arm."""
        return self.origin == RECOMMENDED

    @property
    def score(self) -> float:
        """The mean F1 over the fresh seeds; minus infinity if none has been trained or training diverged with one."""
        return mean(self.fresh) if self.fresh and not self.diverged else float("-inf")

    @property
    def scored(self) -> bool:
        """Whether every fresh seed has been trained, or diverged."""
        return len(self.fresh) + self.diverged == len(FRESH_SEEDS)

    def plan(self, config: StudyConfig, seed: int) -> Plan:
        """Return the plan of a run of this point with a seed."""
        return resolve(*self.run(config, seed))

    def run(self, config: StudyConfig, seed: int) -> tuple[RunOptions, dict[str, Any]]:
        """Return the options of a run of this point with a seed, and the settings that are the variant's own."""
        return (config.recommended(seed), {}) if self.recommended else config.run(self.point, seed)


def finalists(study: Study) -> list[Finalist]:
    """Return the best distinct points, or with two objectives the Pareto front, followed by the known points."""
    single_objective = study.config.objective.cost is None
    complete = converged(study.on_all_items())
    candidates = complete if single_objective else study.optuna.best_trials
    by_fingerprint: dict[str, Finalist] = {}
    for trial in sorted(candidates, key=lambda t: (-t.values[0], t.number)):
        finalist = Finalist(origin=f"trial {trial.number}", point=trial.params, tuned=trial.values[0])
        by_fingerprint.setdefault(_fingerprint(study, finalist, FRESH_SEEDS[0]), finalist)
    best = list(by_fingerprint.items())[: N_BEST if single_objective else None]
    point = study.config.known_points.get(MATCHED)
    if point is not None and point in study.config.space:
        matched = Finalist(origin=MATCHED, point=point)
        fingerprint = _fingerprint(study, matched, FRESH_SEEDS[0])
        if fingerprint not in dict(best):
            value = by_fingerprint[fingerprint].tuned if fingerprint in by_fingerprint else None
            best.append((fingerprint, replace(matched, tuned=value)))
    points = study.config.known_points
    recommended = [Finalist(origin=RECOMMENDED, point=points[RECOMMENDED])] if RECOMMENDED in points else []
    return [_with_scores(study, f) for f in (*(f for _, f in best), *recommended)]


def score_finalists(study: Study, tracker: Tracker, *, stop: Callable[[], bool], pack: int = 1) -> None:
    """Score the finalists with every fresh seed until `stop()`, sharing the work with other workers."""
    by_origin = {finalist.origin: finalist for finalist in finalists(study)}
    name = study.config.variant.name

    def process_cell(cell: str, leased_tracker: Tracker) -> None:
        origin, seed = json.loads(cell)
        # These reports prune nothing; they make the run score the languages of the objective.
        reports = PruningReports(roles=ROLES[study.config.objective.f1], times=1, report=lambda number, value: None)
        plan = by_origin[origin].plan(study.config, seed)
        keep = study.adapters.keep == "all"
        metrics = run_trial(
            plan, leased_tracker, tags=_tags(study, seed), reports=reports, keep=lambda metrics: keep
        ).metrics
        print(f"{name} {origin}, fresh seed {seed}: {study.config.objective.score_text(metrics)}", flush=True)

    def missing() -> list[str]:
        cells = [
            json.dumps([origin, seed])
            for origin, finalist in by_origin.items()
            for seed in FRESH_SEEDS
            if _metrics(study, finalist, seed) is None and not _diverged(study, finalist, seed)
        ]
        if cells and not stop():
            text = f"training {len(by_origin)} finalists with fresh seeds, {len(cells)} runs to do"
            print(f"{name}: {text}{time_left(study, len(cells))}", flush=True)
        return cells

    _process_queue(f"{study.name}/fresh", missing, process_cell, replace(tracker, parent=study.run_id), stop, pack)


def train_final(
    study: Study, best: Finalist, seeds: Sequence[int], tracker: Tracker, *, stop: Callable[[], bool], pack: int = 1
) -> list[str]:
    """Train and score the best point with the final seeds as ordinary runs, tagged with the study's name.

    Returns:
        A message for each run that is still missing.
    """

    def process_cell(cell: str, leased_tracker: Tracker) -> None:
        result = run(best.plan(study.config, int(cell)), leased_tracker)
        tracker.client.set_tag(result.run_id, "whichlora.study", study.name)

    def missing() -> list[int]:
        fingerprints = {seed: _fingerprint(study, best, seed) for seed in seeds}
        return [s for s, value in fingerprints.items() if not tracker.find("run", status="FINISHED", fingerprint=value)]

    name = f"{study.name}/final/{_fingerprint(study, best, FRESH_SEEDS[0])[:12]}"
    _process_queue(name, lambda: [str(seed) for seed in missing()], process_cell, tracker, stop, pack)
    return [f"{study.name}: no final run with seed {seed}" for seed in missing()]


def _process_queue(
    name: str,
    missing: Callable[[], Sequence[str]],
    process_cell: Callable[[str, Tracker], None],
    tracker: Tracker,
    stop: Callable[[], bool],
    pack: int,
) -> None:
    """Enqueue the missing cells and process the queue together with other workers."""
    queue = Queue(name, connect())
    completed = queue.completed()  # read before the runs: a cell that is completed in between is not repeated
    queue.offer(missing(), completed=completed)
    queue.work(lambda cell, check: process_cell(cell, replace(tracker, check_lease=check)), stop=stop, pack=pack)


def _tags(study: Study, seed: int) -> dict[str, str]:
    return {"study": study.name, "trial": f"fresh {seed}"}


def _fingerprint(study: Study, finalist: Finalist, seed: int) -> str:
    """Return the fingerprint of a finalist's run; unlike points, it is the same for 16 and 16.0."""
    return finalist.plan(study.config, seed).spec.fingerprint


def _with_scores(study: Study, finalist: Finalist) -> Finalist:
    """Return a finalist with the scores on the fresh seeds that have been trained."""
    trained = [metrics for seed in FRESH_SEEDS if (metrics := _metrics(study, finalist, seed))]
    return replace(
        finalist,
        fresh=[study.config.objective.values(metrics)[0] for metrics in trained],
        diverged=sum(_diverged(study, finalist, seed) for seed in FRESH_SEEDS),
        seconds=sum(metrics["train/seconds"] for metrics in trained),
    )


def _metrics(study: Study, finalist: Finalist, seed: int) -> dict[str, float] | None:
    """Return the metrics of a finalist's run with a fresh seed, or None if the run is missing."""
    fingerprint = _fingerprint(study, finalist, seed)
    run = study.tracker.find("trial", status="FINISHED", fingerprint=fingerprint, **_tags(study, seed))
    return None if run is None else run.data.metrics


def _diverged(study: Study, finalist: Finalist, seed: int) -> bool:
    """Return whether a finalist's run with a fresh seed diverged. It is not repeated unless the run is deleted."""
    tags = {"fingerprint": _fingerprint(study, finalist, seed), **_tags(study, seed)}
    finished = study.tracker.find("trial", status="FINISHED", **tags)
    return finished is None and run_diverged(study.tracker.find("trial", status="FAILED", **tags))
