"""Carries out tuning: opens studies, shares out trials among them, scores the best again and reports."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence

from tuning import report
from tuning.finalists import Finalist, finalists, score_again, train_final
from tuning.optuna_study import Study
from tuning.study_config import FRESH_SEEDS, TUNING_SEED, StudyConfig
from tuning.study_status import connect
from whichlora.models.memory import freeze_gc
from whichlora.parallel import lockstep
from whichlora.scheduling.jobs import Engine, Job, is_worker
from whichlora.scheduling.retries import POLL_SECONDS, repeat_until_done, with_retries
from whichlora.scheduling.storage import GRACE_SECONDS
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import parse_pack


def carry_out(
    settings: Sequence[StudyConfig],
    *,
    engine: Engine | None,
    trials: int,
    timeout: int | None,
    budget: int | None,
    seeds: Sequence[int],
    pack: str,
    arguments: Sequence[str],
) -> int:
    """Open or resume the studies of these settings, tune, here or with an engine's workers, and print the results.

    Args:
        trials, budget: complete and pruned trials, and device-seconds, of each study.
        timeout: seconds after which this process begins no more trials.
        seeds: of the final runs; none are made without.
        pack: the option, as text: how many trials train at once.
        arguments: of the command, for workers and to resume the studies.

    Returns:
        the exit status: 1 if something is missing.

    Raises:
        OptionError: a setting cannot be a run, trials cannot be packed, or workers cannot start.
    """
    for setting in settings:
        setting.check()
    together = parse_pack(pack, [s.plan(s.example, TUNING_SEED) for s in settings])
    freeze_gc()
    if engine is not None:
        engine.connect()
    tracker = Tracker.of_call()
    deadline = None if timeout is None else time.time() + timeout
    command = shlex.join(["python", "-m", "tuning.tune", *arguments])

    def opened() -> list[Study]:
        database = connect()
        return [Study(setting, tracker, database, command=command) for setting in settings]

    studies = with_retries(opened)
    tracker.link_launch(",".join(study.run_id for study in studies))
    if not is_worker():
        for study in studies:
            print(study.far(trials, budget), flush=True)
    if engine is not None:
        table, missing = _tune_with_workers(studies, engine, arguments)
    else:
        table, missing = tune(
            studies, tracker, trials=trials, budget=budget, deadline=deadline, seeds=seeds, pack=together
        )
    if not is_worker():
        print(table)
    for what in missing:
        print(what, file=sys.stderr)
    return 1 if missing else 0


def tune(
    studies: Sequence[Study],
    tracker: Tracker,
    *,
    trials: int,
    budget: float | None = None,
    deadline: float | None = None,
    seeds: Sequence[int] = (),
    pack: int = 1,
) -> tuple[str, list[str]]:
    """Bring every study to its budget with any other workers, score the best points again, and say what came of it.

    Once `deadline` (seconds since the epoch) has passed, or a study was stopped, nothing new begins, and other workers
    are waited for no longer than it takes to know that they live.

    Args:
        trials, budget: complete and pruned trials, and device-seconds, of each study.
        seeds: of the final runs; none are made without.
        pack: how many trials train at once.

    Returns:
        a table over the variants, and what is missing.
    """

    def late(by: float = 0.0) -> bool:
        return deadline is not None and time.time() > deadline + by

    def step() -> bool:
        """Give the study that has had least a turn."""
        had = [study.seconds() if budget is not None else study.begun() for study in studies]
        outcomes = set()
        for _, study in sorted(zip(had, studies, strict=True), key=lambda pair: pair[0]):
            fresh = not late() and (budget is None or study.seconds() < budget)
            outcomes.add(study.step(limit=trials, open_for_new=fresh))
            if "worked" in outcomes:
                print(study.far(trials, budget), flush=True)
                return True
        if "waiting" not in outcomes or late(by=GRACE_SECONDS) or lockstep.others_active():
            return False  # or others of this process are still at work, and look for more
        time.sleep(POLL_SECONDS)
        return True

    lockstep.run(pack, lambda: repeat_until_done(step))
    found, missing = [], []
    for study in studies:
        scored, problems = with_retries(lambda study=study: _close(study, tracker, late, seeds, pack))  # type: ignore[misc]
        found.append((study, scored))
        missing += problems
    return report.summary(found), missing


def _close(
    study: Study, tracker: Tracker, late: Callable[[], bool], seeds: Sequence[int], pack: int
) -> tuple[list[Finalist], list[str]]:
    """Score a study's best points again, write down what it has found, and train the best for good.

    All that is done already is found again, so it may be called any number of times.

    Returns:
        the contenders, and what is missing.
    """

    def over() -> bool:
        return late() or study.stopped() or study.problem is not None

    missing = [] if study.problem is None else [f"{study.name}: every trial failed here, the last with {study.problem}"]
    if study.counted():
        score_again(study, tracker, stop=over, pack=pack)
    scored = finalists(study) if study.counted() else []
    report.log_results(study, scored, tracker)
    best = report.winner(scored)
    if best is not None and seeds:
        missing += train_final(study, best, seeds, tracker, stop=over, pack=pack)
    if best is None:
        lacking = ", ".join(c.origin for c in scored if len(c.fresh) < len(FRESH_SEEDS))
        what = f"{study.name}: no best point, for want of scores with fresh seeds of {lacking or 'any trial'}"
        if not over():
            missing.append(what)
        elif study.problem is None:  # it was to end here
            print(f"{what}; the same command goes on.", flush=True)
    return scored, missing


def _tune_with_workers(studies: Sequence[Study], engine: Engine, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Have an engine's workers do what `tune` does. One that ends well has seen that all is done.

    Returns:
        a table over the variants, and what is missing.
    """
    died = engine.run(Job("tuning.tune", arguments), lambda: None)
    if died:
        print(f"{len(died)} of {engine.workers} workers ended early: {'; '.join(died)}.", file=sys.stderr)
    found = [(study, finalists(study) if study.counted() else []) for study in studies]
    return report.summary(found), ["No worker ended well."] if len(died) == engine.workers else []
