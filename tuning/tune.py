"""Tunes variants with equal budgets, opening or resuming their studies: `python -m tuning.tune --variant vera`.

Any number of processes, on any machines with the same `MLFLOW_TRACKING_URI` and `WHICHLORA_STORAGE`, join by the same
command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tuning.sampling import PRUNERS
from tuning.setting import FRESH_SEEDS, TUNING_SEED, Setting, read_objective
from tuning.space import KINDS, SEARCHED, read_space, space_of
from whichlora import processes
from whichlora.engines import ENGINES, Job, engine_of, is_worker
from whichlora.errors import OptionError, choose
from whichlora.noise import quiet
from whichlora.options import AUTO, MAIN, parse_values
from whichlora.variants import CATALOGUE, Variant

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

    from tuning.study import Study
    from whichlora.tracking import Tracker

OPTIONS = {
    **{name: entry for name, entry in MAIN.items() if name != "arm"},
    "variant": ("lora", "one variant, several joined by commas, or all: each gets the same budget, in turn"),
    "seed": ("42", "seeds of the final runs, joined by commas; never those of tuning"),
    "trials": ("20", "complete and pruned trials of each study, in all"),
    "timeout": (AUTO, "seconds after which this process begins no more trials"),
    "budget": (AUTO, "device-seconds of each study, after which it begins no more trials"),
    "objective": ("mean", "validation F1 of en, tl or mean; with ,parameters or ,seconds the Pareto front against it"),
    "space": ("paper", f"{' or '.join(KINDS)} (log scale), or a YAML file with lists and ranges of your own"),
    "pruner": ("median", f"what stops trials early: {', '.join(PRUNERS)}"),
    "reports": ("4", "how often an epoch a trial reports its score to the pruner"),
    "final": ("false", "train and score the best point with the seeds: true or false"),
    "engine": ("local", f"where the trials are made: {', '.join(ENGINES)}"),
    "workers": ("1", "processes on this machine, or tasks of Ray; start the same command elsewhere for more"),
}
_COUNTS = {"trials": 10**6, "timeout": 10**8, "budget": 10**8, "reports": 1000}


def tune(
    studies: Sequence[Study],
    tracker: Tracker,
    database: RDBStorage,
    *,
    trials: int,
    budget: float | None,
    deadline: float | None,
    seeds: Sequence[int],
) -> None:
    """Bring every study to its budget with any other workers, score the best points again, and log what came of it."""
    from tuning import report
    from tuning.contenders import contenders, score_again, train_final
    from whichlora.claims import POLL_SECONDS, persist

    def step() -> bool:
        """Give the study that has had least a turn."""
        in_time = deadline is None or time.time() < deadline
        had = [study.seconds() if budget is not None else study.begun() for study in studies]
        outcomes = set()
        for _, study in sorted(zip(had, studies, strict=True), key=lambda pair: pair[0]):
            fresh = in_time and (budget is None or study.seconds() < budget)
            outcomes.add(study.step(limit=trials, open_for_new=fresh))
            if "worked" in outcomes:
                return True
        if "waiting" in outcomes:
            time.sleep(POLL_SECONDS)
        return "waiting" in outcomes

    persist(step)
    for study in studies:
        problem = study.hopeless()
        if problem is not None:
            print(f"{study.name}: its first trials all failed, the last with {problem}", file=sys.stderr)
            continue
        score_again(study, tracker, database)
        scored = contenders(study)
        best = report.winner(scored)
        report.write_down(study, scored, tracker)
        if best is not None and seeds:
            train_final(study, best, seeds, tracker, database)


def summary(studies: Sequence[Study]) -> str:
    """Return a table over the variants of what their studies have found."""
    from tuning import report
    from tuning.contenders import contenders

    return report.summary([(study, contenders(study)) for study in studies if study.hopeless() is None])


def settings_of(texts: Mapping[str, str]) -> list[Setting]:
    """Return the setting of each variant's study from the options, as text.

    Raises:
        OptionError: an option is bad, alone or with the others.
    """
    from whichlora import models

    variants = _variants(texts["variant"])
    main = {name: text for name, text in texts.items() if name in MAIN and name not in ("variant", "seed", "arm")}
    values = parse_values(main)
    objective, pruner = read_objective(texts["objective"]), choose("pruner", texts["pruner"], PRUNERS)
    if objective.cost is not None and pruner != "none":
        pruner = "none"  # one value cannot say that a trial with two is lost
    kind, own = read_space(texts["space"], variants)
    shape = models.shape(models.locate(values["model"]))
    fixed = [name for name in SEARCHED if values[name] is not None]
    return [
        Setting(
            variant=variant,
            values=values,
            shape=shape,
            space=space_of(variant, shape, fixed=fixed, kind=kind, own=own[variant.name]),
            objective=objective,
            pruner=pruner,
            reports=_count("reports", texts["reports"]),
        )
        for variant in variants
    ]


def _variants(text: str) -> list[Variant]:
    trained = {name: variant for name, variant in CATALOGUE.items() if variant.kind != "none"}
    if text == "all":
        return list(trained.values())
    return [trained[choose("variant", name.strip(), [*trained, "all"])] for name in text.split(",")]


def _seeds(text: str) -> list[int]:
    seeds = [parse_values({"seed": part.strip()})["seed"] for part in text.split(",")]
    for seed in seeds:
        if TUNING_SEED <= seed <= max(FRESH_SEEDS):
            raise OptionError("seed", seed, f"{TUNING_SEED} to {max(FRESH_SEEDS)} are for tuning; take another")
    return seeds


def _count(option: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= _COUNTS[option]:
        raise OptionError(option, text, f"must be a whole number from 1 to {_COUNTS[option]}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune as the options say and print what came of it. Returns the exit status: 2 for bad options."""
    parser = argparse.ArgumentParser(
        prog="python -m tuning.tune",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    for name, (default, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", default=default, help=text, metavar="VALUE")
    texts = vars(parser.parse_args(arguments))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if processes.count() > 1:
            raise OptionError("trials", texts["trials"], "tune does not run under accelerate launch; take workers=2")
        engine = engine_of(texts["engine"], texts["workers"])
        trials = _count("trials", texts["trials"])
        timeout, budget = (None if texts[n] == AUTO else _count(n, texts[n]) for n in ("timeout", "budget"))
        seeds = _seeds(texts["seed"])
        final = choose("final", texts["final"], ("true", "false")) == "true"
        quiet()
        settings = settings_of(texts)
        from tuning.study import Study, connect
        from whichlora import tracking
        from whichlora.memory import settle

        for setting in settings:
            setting.plan(setting.known_points["recommended"], TUNING_SEED)
        settle()

        if engine is not None:
            engine.connect()
        client = tracking.connect()
        tracker = tracking.Tracker(client, tracking.chosen_experiment(client), tracking.mark_launch(client))
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    began = time.time()
    database = connect()
    given = _given(texts)
    command = shlex.join(["python", "-m", "tuning.tune", *given])
    studies = [Study(setting, tracker, database, command=command) for setting in settings]
    for study in studies:
        tracking.link_launch(client, tracker.launch, study.run_id)
        if not is_worker():
            print(f"{study.name}: {len(study.counted())} of {trials} trials", flush=True)
    died: list[str] = []
    if engine is not None:
        died = engine.run(Job("tuning.tune", given), lambda: None)
        if died:
            print(f"{len(died)} of {engine.workers} workers ended early: {'; '.join(died)}.", file=sys.stderr)
    else:
        deadline = None if timeout is None else began + timeout
        tune(
            studies,
            tracker,
            database,
            trials=trials,
            budget=budget,
            deadline=deadline,
            seeds=seeds if final else (),
        )
    if not is_worker():
        print(summary(studies))
    lost = engine is not None and len(died) == engine.workers
    return 1 if lost or any(study.hopeless() for study in studies) else 0


def _given(texts: Mapping[str, str]) -> list[str]:
    """Return the options that make the study what it is, as arguments, without those that say where it is worked on."""
    chosen = {n: text for n, text in texts.items() if n not in ("engine", "workers") and text != OPTIONS[n][0]}
    return [part for name, text in chosen.items() for part in (f"--{name}", text)]


if __name__ == "__main__":
    sys.exit(main())
