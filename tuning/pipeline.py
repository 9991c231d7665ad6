"""Tunes variants: opens their studies, runs trials, scores the best points again, and reports."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence

from tuning import report
from tuning.finalists import Finalist, finalists, score_finalists, train_final
from tuning.optuna_study import Study
from tuning.outcome import outcome
from tuning.progress import Forecast, forecast, progress
from tuning.study_config import TUNING_SEED, StudyConfig
from tuning.study_status import connect, names
from whichlora.announcements import announce
from whichlora.config.cli import format_duration
from whichlora.config.options import AUTO
from whichlora.errors import OptionError
from whichlora.models.memory import freeze_gc
from whichlora.parallel import lockstep
from whichlora.run.durations import known_durations
from whichlora.scheduling import storage
from whichlora.scheduling.jobs import Engine, Job, is_worker, run_workers
from whichlora.scheduling.retries import POLL_SECONDS, repeat_until_done, with_retries
from whichlora.scheduling.storage import GRACE_SECONDS
from whichlora.text_tables import terminal_width
from whichlora.tracking.client import check_writable, create_work_folder, database_exists
from whichlora.tracking.experiment_page import RESULTS, TRIALS, results_line
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import parse_pack


def run_studies(
    configs: Sequence[StudyConfig],
    *,
    engine: Engine | None,
    trials: int,
    timeout: int | None,
    budget: int | None,
    seeds: Sequence[int],
    pack: str,
    keep_adapters: str,
    arguments: Sequence[str],
) -> int:
    """Open or resume studies, tune in this process or with the workers of an engine, and print the results.

    Args:
        configs: the fixed part of each study.
        engine: runs the workers; None tunes in this process.
        trials: complete and pruned trials of each study.
        timeout: seconds after which this process starts no more trials.
        budget: device-seconds of each study; None for no limit.
        seeds: seeds of the final runs; if empty, there are none.
        pack: the option `pack` as text: number of trials to train at once.
        keep_adapters: the trials of which the adapters are kept, one of `KEEP`.
        arguments: the arguments of `tune`, for the workers and to resume the studies.

    Returns:
        The exit status: 1 if results are missing.

    Raises:
        OptionError: a study has no valid runs, trials cannot be packed, or workers cannot start.
    """
    for config in configs:
        config.check()
    pack_size = parse_pack(pack, [c.plan(c.packed_example, TUNING_SEED) for c in configs])
    freeze_gc()
    if engine is not None:
        engine.connect()
    create_work_folder()
    storage.check_configured()
    tracker = Tracker.for_command()
    check_writable()
    storage.check_writable()
    deadline = None if timeout is None else time.monotonic() + timeout
    command = shlex.join(["python", "-m", "tuning.tune", *arguments])

    studies = open_studies(configs, tracker, command=command, keep_adapters=keep_adapters)
    tracker.link_launch(",".join(study.run_id for study in studies))
    if not is_worker():
        for study in studies:
            print(progress(study, trials, budget), flush=True)
        announce(_first_estimate(studies, trials=trials, budget=budget))
    try:
        if engine is not None:
            table, missing = _tune_with_workers(studies, engine, arguments)
        else:
            table, missing = tune(
                studies, tracker, trials=trials, budget=budget, deadline=deadline, seeds=seeds, pack=pack_size
            )
    except KeyboardInterrupt:
        if not is_worker():
            for study in studies:
                study.mark_interrupted()
        raise
    if not is_worker():
        results = [(study, finalists(study) if study.counted() else []) for study in studies]
        print(outcome(results, experiment=tracker.experiment, summary=table, width=terminal_width()))
        print(results_line(tracker.client, tracker.experiment, RESULTS if seeds else TRIALS))
    for message in missing:
        print(message, file=sys.stderr)
    return 1 if missing else 0


def open_studies(configs: Sequence[StudyConfig], tracker: Tracker, *, command: str, keep_adapters: str) -> list[Study]:
    """Open or create studies in the shared database.

    Raises:
        OptionError: a study of these options exists that was begun before its space had a recipe.
    """

    def opened() -> list[Study]:
        database = connect()
        stored = names(database) if any(config.earlier for config in configs) else []
        for config in configs:
            if (earlier := config.earlier_name) in stored and config.name() not in stored:
                allowed = (
                    f"the study {earlier} has no recipe; search=none resumes it, and search=all begins another one"
                )
                raise OptionError("search", AUTO, allowed)
        return [Study(config, tracker, database, command=command, keep_adapters=keep_adapters) for config in configs]

    return with_retries(opened)


def forecasts(configs: Sequence[StudyConfig], *, trials: int, budget: float | None) -> list[Forecast]:
    """Return the trials of new studies and their time, from finished runs on this machine. Nothing is written.

    Raises:
        OptionError: a study has no valid runs.
    """
    for config in configs:
        config.check()
    durations = None
    if database_exists():
        client, example = Tracker.for_command().client, configs[0]
        durations = known_durations(client, example.plan(example.example, TUNING_SEED))
    return [forecast(config, durations, trials=trials, budget=budget) for config in configs]


def _first_estimate(studies: Sequence[Study], *, trials: int, budget: int | None) -> str:
    """Print the trials of new studies with rungs, and return how long those of all new ones take.

    The time is estimated from finished runs, "" without new studies, or if the budget limits it.
    """
    new = [study.config for study in studies if not study.counted()]
    halving = bool(new) and new[0].rungs.halving
    if not new or (budget is not None and not halving):
        return ""
    found = forecasts(new, trials=trials, budget=budget)
    if halving:
        print("\n".join(each.text for each in found), flush=True)
    seconds = [each.seconds for each in found]
    if None in seconds:
        return "There is no estimate of the time yet; the first trial gives one."
    total, pruning = format_duration(sum(filter(None, seconds))), "" if halving else ", without pruning"
    return f"Training all trials takes about {total}{pruning}, estimated from finished runs on this machine."


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
    """Run trials until every study has used its budget, score the best points again, and summarise the results.

    Other workers may work on the same studies. After `deadline` (as in `time.monotonic`), or once a study is stopped,
    nothing new starts, and running trials of other workers are awaited only until a dead worker would be detected.

    Args:
        trials: complete and pruned trials of each study.
        budget: device-seconds of each study; None for no limit.
        seeds: seeds of the final runs; if empty, there are none.
        pack: number of trials to train at once.

    Returns:
        A Markdown table with a row per variant, and messages about missing results.
    """

    def past_deadline(grace: float = 0.0) -> bool:
        return deadline is not None and time.monotonic() > deadline + grace

    def step() -> bool:
        """Run a trial of the study that has used the least budget; return whether more may follow."""
        used = [study.seconds() if budget is not None else study.n_started() for study in studies]
        outcomes = set()
        for _, study in sorted(zip(used, studies, strict=True), key=lambda pair: pair[0]):
            allow_new = not past_deadline() and (budget is None or study.seconds() < budget)
            outcomes.add(study.step(limit=trials, allow_new=allow_new, budget=budget))
            if "worked" in outcomes:
                print(progress(study, trials, budget), flush=True)
                return True
        if "waiting" not in outcomes or past_deadline(grace=GRACE_SECONDS) or lockstep.others_active():
            return False  # a thread of this process that is still working will look for further trials
        time.sleep(POLL_SECONDS)
        return True

    lockstep.run(pack, lambda: repeat_until_done(step))
    results, missing = [], []
    for study in studies:
        scored, problems = with_retries(lambda study=study: _finish(study, tracker, past_deadline, seeds, pack))  # type: ignore[misc]
        results.append((study, scored))
        missing += problems
    return report.summary(results), missing


def _finish(
    study: Study, tracker: Tracker, past_deadline: Callable[[], bool], seeds: Sequence[int], pack: int
) -> tuple[list[Finalist], list[str]]:
    """Score a study's best points again, log its results, and train the best point with the final seeds.

    Safe to repeat: finished runs are reused.

    Returns:
        The finalists, and messages about missing results.
    """

    def should_stop() -> bool:
        return past_deadline() or study.stopped() or study.problem is not None

    missing = (
        []
        if study.problem is None
        else [f"{study.name}: every trial failed in this process, the last with {study.problem}"]
    )
    if study.counted():
        score_finalists(study, tracker, stop=should_stop, pack=pack)
    scored = finalists(study) if study.counted() else []
    announce(f"Logging the results of {study.name}.")
    report.log_results(study, scored, tracker)
    best = report.winner(scored)
    if best is not None and seeds:
        missing += train_final(study, best, seeds, tracker, stop=should_stop, pack=pack)
    if best is None:
        unscored = ", ".join(f.origin for f in scored if not f.scored)
        message = f"{study.name}: no best point yet, fresh seeds are missing for {unscored or 'all trials'}"
        if scored and not unscored:
            missing.append(f"{study.name}: no best point, training diverged for every finalist")
        elif not should_stop():
            missing.append(message)
        elif study.problem is None:  # ended by a deadline or a stop, which is not an error
            print(f"{message}; run the same command again to resume.", flush=True)
    return scored, missing


def _tune_with_workers(studies: Sequence[Study], engine: Engine, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Run `tune` in the workers of an engine; a worker that succeeds has checked that nothing is left to do.

    Returns:
        A Markdown table with a row per variant, and messages about missing results.
    """
    failed = run_workers(engine, Job("tuning.tune", arguments))
    results = [(study, finalists(study) if study.counted() else []) for study in studies]
    return report.summary(results), ["Every worker failed."] if failed == engine.workers else []
