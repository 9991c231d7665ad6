"""Tunes variants with equal budgets, opening or resuming their studies: `python -m tuning.tune --variant vera`.

Any number of processes, on any machines with the same `MLFLOW_TRACKING_URI` and `WHICHLORA_STORAGE`, join by the same
command.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tuning.sampler import PRUNERS
from tuning.space import KINDS, SEARCHED, read_space, space_of
from tuning.study_config import FRESH_SEEDS, TUNING_SEED, StudyConfig, parse_objective
from whichlora.config.cli import PACK, parse_arguments, refuse
from whichlora.config.options import AUTO, MAIN, parse_options
from whichlora.data.tasks import PROMPTED
from whichlora.errors import OptionError, choose, parse_whole
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.scheduling.jobs import Job, is_worker
from whichlora.variants import CATALOGUE, Variant, get_variant, variant_names

if TYPE_CHECKING:
    from tuning.finalists import Finalist
    from tuning.study import Study
    from whichlora.scheduling.jobs import Engine
    from whichlora.tracking.runs import Tracker

_NOT_TUNED = ("arm", "pool_layer", "first_token", "retention", "retention_size")
"""Options of `main` that say nothing of what a study trains and validates."""
OPTIONS = {
    **{name: entry for name, entry in MAIN.items() if name not in _NOT_TUNED},
    "variant": ("lora", "one variant, several joined by commas, or all: each gets the same budget, in turn"),
    "seed": ("42", "seeds of the final runs, joined by commas; never those of tuning"),
    "trials": (AUTO, "complete and pruned trials of each study, in all; auto is 20, and no limit with a budget"),
    "timeout": (AUTO, "seconds after which this process begins no more trials"),
    "budget": (AUTO, "device-seconds of each study, after which it begins no more trials"),
    "objective": ("mean", "validation F1 of en, tl or mean; with ,parameters or ,seconds the Pareto front against it"),
    "space": ("paper", f"{' or '.join(KINDS)} (log scale), or a YAML file with lists and ranges of your own"),
    "pruner": (AUTO, f"what stops trials early: {', '.join(PRUNERS)}; auto is median, with a cost none"),
    "reports": ("4", "how often a trial reports its score to the pruner"),
    "final": ("false", "train and score the best point with the seeds: true or false"),
    "engine": ("local", f"where the trials are made: {', '.join(ENGINES)}"),
    "workers": ("1", "processes on this machine, or tasks of Ray; start the same command elsewhere for more"),
    "pack": PACK,
}
_TRIALS = 20
_COUNTS = {"trials": 10**6, "timeout": 10**8, "budget": 10**8, "reports": 1000}


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

    from tuning import report
    from whichlora.parallel import lockstep
    from whichlora.scheduling.retries import POLL_SECONDS, repeat_until_done, with_retries
    from whichlora.scheduling.storage import GRACE_SECONDS

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

    from tuning import report
    from tuning.finalists import finalists, score_again, train_final

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


def settings_of(texts: Mapping[str, str]) -> list[StudyConfig]:
    """Return the setting of each variant's study from the options, as text.

    Raises:
        OptionError: an option is bad, alone or with the others.
    """
    from whichlora.models.loading import locate, read_shape

    variants = _variants(texts["variant"])
    main = {name: text for name, text in texts.items() if name in MAIN and name not in ("variant", "seed", "arm")}
    options = parse_options(main)
    choose("task", options.task, PROMPTED)  # a study compares validation F1
    objective, pruner = parse_objective(texts["objective"]), choose("pruner", texts["pruner"], (AUTO, *PRUNERS))
    if objective.cost is not None and pruner not in (AUTO, "none"):
        allowed = f"one value cannot tell that a trial is lost with objective={objective.text}; leave it out"
        raise OptionError("pruner", pruner, allowed)
    if pruner == AUTO:
        pruner = "median" if objective.cost is None else "none"
    reports = _count("reports", texts["reports"])
    if reports is None:
        raise OptionError("reports", AUTO, "must be a number")
    kind, own = read_space(texts["space"], variants)
    shape = read_shape(locate(options.model))
    fixed = [name for name in SEARCHED if getattr(options, name) is not None]
    return [
        StudyConfig(
            variant=variant,
            options=options,
            shape=shape,
            space=space_of(variant, shape, fixed=fixed, kind=kind, own=own[variant.name]),
            objective=objective,
            pruner=pruner,
            reports=reports,
        )
        for variant in variants
    ]


def _variants(text: str) -> list[Variant]:
    """Return the variants of the option; `all` are those of the catalogue that train something."""
    untrained = [name for name, variant in CATALOGUE.items() if not variant.trains]
    names = [name for name in variant_names() if name not in untrained]
    if text == "all":
        return [variant for variant in CATALOGUE.values() if variant.trains]
    variants = [get_variant(choose("variant", name.strip(), [*names, "all"])) for name in text.split(",")]
    for variant in variants:
        if not variant.trains:
            raise OptionError("variant", variant.name, "trains nothing, so there is nothing to tune")
    return variants


def _seeds(text: str) -> list[int]:
    seeds = [parse_options({"seed": part.strip()}).seed for part in text.split(",")]
    for seed in seeds:
        if TUNING_SEED <= seed <= max(FRESH_SEEDS):
            raise OptionError("seed", seed, f"{TUNING_SEED} to {max(FRESH_SEEDS)} are for tuning; take another")
    return seeds


def _count(option: str, text: str) -> int | None:
    """Return a number; None for `auto`."""
    return None if text == AUTO else parse_whole(option, text, 1, _COUNTS[option])


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune as the options say and print what came of it. Returns the exit status: 2 for bad options."""
    texts = parse_arguments(arguments, __doc__.splitlines()[0], OPTIONS)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if distributed.world_size() > 1:
            raise OptionError("trials", texts["trials"], "tune does not run under accelerate launch; take workers=2")
        engine = engine_of(texts["engine"], texts["workers"])
        trials, timeout, budget = (_count(n, texts[n]) for n in ("trials", "timeout", "budget"))
        if trials is None:
            trials = _TRIALS if budget is None else _COUNTS["trials"]
        seeds = _seeds(texts["seed"])
        final = choose("final", texts["final"], ("true", "false")) == "true"
        quiet()
        settings = settings_of(texts)
        from whichlora.models.memory import freeze_gc
        from whichlora.tracking.runs import Tracker
        from whichlora.training.multi_adapter import parse_pack

        for setting in settings:
            setting.check()
        costs = {setting.objective.cost for setting in settings}
        if texts["pack"] != "1" and "seconds" in costs:
            raise OptionError(
                "pack", texts["pack"], "must be 1 with seconds as a cost: those of a pass are not a trial's"
            )
        pack = parse_pack(texts["pack"], [s.plan(s.example, TUNING_SEED) for s in settings])
        freeze_gc()
        if engine is not None:
            engine.connect()
        tracker = Tracker.of_call()
    except OptionError as error:
        return refuse(error)
    deadline = None if timeout is None else time.time() + timeout
    given = _given(texts)
    command = shlex.join(["python", "-m", "tuning.tune", *given])

    from tuning.study import Study, connect
    from whichlora.scheduling.retries import with_retries

    def opened() -> list[Study]:
        database = connect()
        return [Study(setting, tracker, database, command=command) for setting in settings]

    studies = with_retries(opened)
    tracker.link_launch(",".join(study.run_id for study in studies))
    if not is_worker():
        for study in studies:
            print(study.far(trials, budget), flush=True)
    if engine is not None:
        table, missing = _have_made(studies, engine, given)
    else:
        table, missing = tune(
            studies, tracker, trials=trials, budget=budget, deadline=deadline, seeds=seeds if final else (), pack=pack
        )
    if not is_worker():
        print(table)
    for what in missing:
        print(what, file=sys.stderr)
    return 1 if missing else 0


def _have_made(studies: Sequence[Study], engine: Engine, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Have an engine's workers do what `tune` does. One that ends well has seen that all is done.

    Returns:
        a table over the variants, and what is missing.
    """
    from tuning import report
    from tuning.finalists import finalists

    died = engine.run(Job("tuning.tune", arguments), lambda: None)
    if died:
        print(f"{len(died)} of {engine.workers} workers ended early: {'; '.join(died)}.", file=sys.stderr)
    found = [(study, finalists(study) if study.counted() else []) for study in studies]
    return report.summary(found), ["No worker ended well."] if len(died) == engine.workers else []


def _given(texts: Mapping[str, str]) -> list[str]:
    """Return the options that make the study what it is, as arguments, without those that say where it is worked on."""
    chosen = {n: text for n, text in texts.items() if n not in ("engine", "workers") and text != OPTIONS[n][0]}
    return [part for name, text in chosen.items() for part in (f"--{name}", text)]


if __name__ == "__main__":
    sys.exit(main())
