"""Tunes variants with equal budgets in new or resumed studies: `python -m tuning.tune --variant vera`.

Any number of processes, on any machines with the same `MLFLOW_TRACKING_URI` and `WHICHLORA_STORAGE`, join with the same
command.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial

from tuning.dimensions.recipe import ALPHA_RULES, NAMES, SEARCHES, check_search, largest_batch, parse_search
from tuning.halving.rungs import MOST, REDUCTION, Rungs
from tuning.space import KINDS, SEARCHED, Space, build_space, read_space
from tuning.study_config import FRESH_SEEDS, KEEP, PRUNERS, ROLES, TUNING_SEED, Objective, StudyConfig, parse_objective
from whichlora.announcements import announced
from whichlora.command_line import BOOLEANS, FOLDER, Command, exit_with, parse_boolean
from whichlora.config.cli import WORKERS, check_pack, guarded
from whichlora.config.item_sizes import item_sizes
from whichlora.config.options import (
    AUTO,
    CHOICES,
    COSTS,
    GROUPS,
    RUN_OPTIONS,
    SCORED_BESIDE,
    check_data_dir,
    check_task,
    parse_option,
    parse_options,
)
from whichlora.data.tasks import PROMPTED, PROMPTED_VALUES, get_task, task_class
from whichlora.errors import OptionError, check_choice, parse_integer, parse_unless
from whichlora.models.loading import locate, read_shape
from whichlora.models.quiet import quiet
from whichlora.option_lists import parse_list
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.variants import CATALOGUE, Variant, get_variant, variant_names

_NOT_TUNED = ("arm", "pool_layer", "first_token", *COSTS, *SCORED_BESIDE)
"""Options of a run that do not affect how a study trains and validates."""
OPTIONS = {
    **{name: entry for name, entry in RUN_OPTIONS.items() if name not in _NOT_TUNED},
    "variant": ("lora", "One or more variants separated by commas, or all; each gets the same budget."),
    "task": ("atlas-nli", f"Task to train and validate: {PROMPTED_VALUES}."),
    "seed": ("42", "Seeds of the final runs, separated by commas; the seeds of tuning are not allowed."),
    "trials": (
        AUTO,
        "Complete and pruned trials per study, or with rungs their cost in trainings on all items; auto is 20, or no "
        "limit with a budget.",
    ),
    "timeout": (AUTO, "Seconds after which this process starts no new trials."),
    "budget": (AUTO, "Device-seconds of trials per study, after which no new trials start."),
    "objective": (
        "mean",
        "Validation F1 to maximise, or the task's own metric: en (source language), tl (target language) or mean (of "
        "both, where there are both); append ,parameters or ,seconds for "
        "the Pareto front of F1 and that cost.",
    ),
    "space": ("paper", f"Search space: {' or '.join(KINDS)} (log scale), or a YAML file with lists and ranges."),
    "search": (
        AUTO,
        f"What is searched besides the variant's grid: {', '.join(NAMES)} (alpha as {', '.join(ALPHA_RULES)}), joined "
        "by commas; all; none; auto is all with space=continuous, else none.",
    ),
    "pruner": (
        AUTO,
        f"Optuna pruner that stops trials early: {', '.join(PRUNERS)}; auto is median, or none with a cost.",
    ),
    "reports": ("4", "Number of times that a trial reports its score to the pruner."),
    "rungs": (
        "1",
        f"Rungs of successive halving, 1 to {MOST}: each has a {REDUCTION}th of the items of the next one and "
        f"{REDUCTION} times as many points; 1 trains every point on all items.",
    ),
    "final": ("false", "Whether to train and score the best point with the final seeds: true or false."),
    "dry_run": ("false", "Whether to print the number of trials and their time only: true or false."),
    "keep_adapters": (
        "all",
        "Trials of which the adapters are kept: all, best (the best complete trial so far) or none. Others, also of an "
        "earlier call, are removed.",
    ),
    **WORKERS,
}
_STUDY = (
    "trials",
    "budget",
    "timeout",
    "objective",
    "space",
    "search",
    "pruner",
    "reports",
    "rungs",
    "final",
    "keep_adapters",
    "dry_run",
)
COMMAND = Command(
    "tune",
    "Search hyperparameters of variants with equal budgets.\n\nOpens or resumes the Optuna study of each variant. "
    "Processes on any machines with the same MLFLOW_TRACKING_URI and WHICHLORA_STORAGE join with the same command. A "
    "hyperparameter that is set on the command line is not searched.",
    OPTIONS,
    groups={
        "Study": _STUDY,
        **{title: [name for name in names if name in OPTIONS] for title, names in GROUPS.items()},
        "Workers": tuple(WORKERS),
    },
    choices={
        **{name: values for name, values in CHOICES.items() if name in OPTIONS},
        "variant": ("all", *(name for name, variant in CATALOGUE.items() if variant.kind != "none")),
        "task": PROMPTED,
        "model": FOLDER,
        "data_dir": FOLDER,
        "objective": tuple(ROLES),
        "space": KINDS,
        "search": SEARCHES,
        "pruner": (AUTO, *PRUNERS),
        "final": BOOLEANS,
        "dry_run": BOOLEANS,
        "keep_adapters": KEEP,
        "engine": ENGINES,
    },
    examples=(
        "whichlora tune --variant vera --trials 20",
        "whichlora tune --variant lora,dora,vera --budget 3600 --space continuous --final true --seed 1,2",
    ),
)
_TRIALS = 20
_COUNTS = {"trials": 10**6, "timeout": 10**8, "budget": 10**8, "reports": 1000, "rungs": MOST}


def study_configs(texts: Mapping[str, str]) -> list[StudyConfig]:
    """Return the configuration of each variant's study.

    Args:
        texts: the options of the command, unparsed.

    Raises:
        OptionError: a value is not allowed, by itself or together with the others.
    """
    variants = _variants(texts["variant"])
    main = {
        name: text for name, text in texts.items() if name in RUN_OPTIONS and name not in ("variant", "seed", "arm")
    }
    options = parse_options(main)
    task_class(options.task, prompted=True)  # only these have the validation F1 that a study compares
    check_data_dir(options.data_dir)
    task = get_task(options.task, options.prompt_language)
    check_task(task, language=options.language, difficulty=options.difficulty)
    objective = parse_objective(texts["objective"]).for_task(task)
    pruner = check_choice("pruner", texts["pruner"], (AUTO, *PRUNERS))
    if objective.cost is not None and pruner not in (AUTO, "none"):
        allowed = f"must be auto or none with objective={objective.text}: pruning needs a single objective"
        raise OptionError("pruner", pruner, allowed)
    if objective.cost == "seconds" and texts["pack"] != "1":
        allowed = "must be 1 with seconds as a cost: the seconds of a single packed trial are not known"
        raise OptionError("pack", texts["pack"], allowed)
    rungs = _rungs(texts, objective, pruner)
    if pruner == AUTO:
        pruner = "median" if objective.cost is None and not rungs.halving else "none"
    kind, overrides = read_space(texts["space"], variants)
    shape = read_shape(locate(options.model))
    fixed = [name for name in SEARCHED if getattr(options, name) is not None]
    search = parse_search(texts["search"], kind=kind)
    check_search(texts["search"], search, options, variants)
    batches = "batch_size" in search or any("batch_size" in dimensions for dimensions in overrides.values())
    most = largest_batch(rungs.items(item_sizes(options, task).train_size, 0)) if batches else None

    def space_of(variant: Variant, search: Sequence[str]) -> Space:
        given = overrides[variant.name]
        return build_space(variant, shape, fixed=fixed, kind=kind, overrides=given, search=search, largest_batch=most)

    return [
        StudyConfig(
            variant=variant,
            options=options,
            shape=shape,
            space=space_of(variant, search),
            earlier=space_of(variant, ()) if search and texts["search"] == AUTO else None,
            largest_batch=most,
            objective=objective,
            pruner=pruner,
            reports=1 if rungs.halving else _number("reports", texts["reports"]),
            rungs=rungs,
        )
        for variant in variants
    ]


def _rungs(texts: Mapping[str, str], objective: Objective, pruner: str) -> Rungs:
    """Return the rungs.

    Raises:
        OptionError: another option does not fit them.
    """
    rungs = Rungs(_number("rungs", texts["rungs"]))
    if not rungs.halving:
        return rungs
    if objective.cost is not None:
        raise OptionError(
            "rungs", rungs.number, f"must be 1 with objective={objective.text}: points need one rank order"
        )
    if pruner not in (AUTO, "none"):
        raise OptionError("pruner", pruner, f"must be auto or none with rungs={rungs.number}, which take its place")
    trials = _count("trials", texts["trials"])
    if trials is not None and trials < rungs.least:
        raise OptionError("trials", trials, f"must be at least {rungs.least} with rungs={rungs.number}: one bracket")
    return rungs


def _number(option: str, text: str) -> int:
    """Parse a count that has no automatic value."""
    return parse_integer(option, text, 1, _COUNTS[option])


def _variants(text: str) -> list[Variant]:
    """Return the variants that the option names; for `all`, those of the catalogue that train something."""
    untrained = [name for name, variant in CATALOGUE.items() if not variant.trains]
    names = [name for name in variant_names() if name not in untrained]
    if text == "all":
        return [variant for variant in CATALOGUE.values() if variant.trains]
    given = dict.fromkeys(parse_list("variant", text, partial(check_choice, choices=[*names, "all"])))
    variants = [get_variant(name) for name in given]
    for variant in variants:
        if not variant.trains:
            raise OptionError("variant", variant.name, "trains nothing, so there is nothing to tune")
    return variants


def _seeds(text: str) -> list[int]:
    def parse(option: str, part: str) -> int:
        seed: int = parse_option(option, part)
        if TUNING_SEED <= seed <= max(FRESH_SEEDS):
            raise OptionError(option, seed, f"{TUNING_SEED} to {max(FRESH_SEEDS)} are used for tuning; choose another")
        return seed

    return parse_list("seed", text, parse)


def _count(option: str, text: str) -> int | None:
    """Parse a count; return None for `auto`."""
    return parse_unless(AUTO, _number, option, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tune and print the results. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    return guarded(lambda: _tune(texts), texts)


def _tune(texts: Mapping[str, str]) -> int:
    distributed.check_starts_alone("tune")
    engine = engine_of(texts["engine"], texts["workers"])
    trials, timeout, budget = (_count(n, texts[n]) for n in ("trials", "timeout", "budget"))
    if trials is None:
        trials = _TRIALS if budget is None else _COUNTS["trials"]
    seeds = _seeds(texts["seed"])
    final, dry_run = (parse_boolean(name, texts[name]) for name in ("final", "dry_run"))
    check_choice("keep_adapters", texts["keep_adapters"], KEEP)
    check_pack(texts["pack"])
    with announced("Preparing the studies: packages, items of the task and shape of the model.", logged=True):
        configs = study_configs(texts)

        # torch, Optuna and MLflow take seconds to import, so options are checked first.
        from tuning.pipeline import forecasts, run_studies

    if dry_run:
        print("\n".join(found.text for found in forecasts(configs, trials=trials, budget=budget)))
        return 0
    return run_studies(
        configs,
        engine=engine,
        trials=trials,
        timeout=timeout,
        budget=budget,
        seeds=seeds if final else (),
        pack=texts["pack"],
        keep_adapters=texts["keep_adapters"],
        arguments=_study_arguments(texts),
    )


def _study_arguments(texts: Mapping[str, str]) -> list[str]:
    """Return the options that differ from their defaults as arguments, except those that choose the workers."""
    changed = {n: text for n, text in texts.items() if n not in ("engine", "workers") and text != OPTIONS[n][0]}
    return [part for name, text in changed.items() for part in (f"--{name}", text)]


if __name__ == "__main__":
    exit_with(main)
