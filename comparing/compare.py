"""The command `compare`, which leads from a task and a budget to a method: `python -m whichlora.compare`.

Any number of processes, on any machines with the same `MLFLOW_TRACKING_URI` and `WHICHLORA_STORAGE`, join with the same
command, and the same command resumes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from comparing.budget import NONE, device_seconds, price_of_runs
from comparing.rule import PRIMARIES, Rule, parse_seeds
from tuning.space import KINDS
from tuning.tune import OPTIONS as TUNE_OPTIONS
from whichlora.announcements import announced
from whichlora.command_line import BOOLEANS, FILE, FOLDER, Command, exit_with, parse_boolean
from whichlora.config.cli import WORKERS, check_pack, guarded
from whichlora.config.options import AUTO, CHOICES, GROUPS, RUN_OPTIONS, SCORED_BESIDE
from whichlora.data.tasks import PROMPTED, PROMPTED_VALUES
from whichlora.errors import OptionError, check_choice, check_model_name, parse_integer, parse_number, parse_unless
from whichlora.models.quiet import quiet
from whichlora.parallel import distributed
from whichlora.scheduling.engines import ENGINES, engine_of
from whichlora.variants import CATALOGUE

if TYPE_CHECKING:
    from comparing.comparison import Comparison

_NOT_COMPARED = ("pool_layer", "first_token", "device_price", *SCORED_BESIDE)
"""Options of a run that do not affect its test score, or belong to tasks without one, or to the budget."""
STUDY = {
    **{name: entry for name, entry in RUN_OPTIONS.items() if name not in _NOT_COMPARED},
    "variant": (NONE, "Methods: two or more variants separated by commas, or all. Instead of file."),
    "task": ("atlas-nli", f"Task to train and score: {PROMPTED_VALUES}."),
    "language": (
        "sw",
        "Target language as in run; several separated by spaces are each trained and scored, as in 'sw ur'.",
    ),
    "tl_ratio": (
        "auto",
        "Target-language items as a share of train_size, from 0 to 1; several separated by spaces are each trained.",
    ),
}
"""Options that say what the runs are, by the command line instead of a file."""
RULE = {
    "seed": ("1", "Seeds of the first rounds in ascending order, separated by commas; the next integers follow."),
    "max_seeds": ("20", "Number of seeds at most, 3 or more. Part of what is fixed before the first seed."),
    "margin": ("1", "Difference in points within which methods count as level. Fixed before the first seed."),
    "confidence": ("0.95", "Confidence of all statements together, at every look. Fixed before the first seed."),
    "primary": (
        "tl",
        "Score that counts: tl (target language), en (source language) or mean (of both). Fixed before the first seed.",
    ),
}
BUDGET = {
    "budget": (
        NONE,
        "Device-hours of tuning and of the comparison's own runs, such as 20, or money, such as 50EUR; none: no limit.",
    ),
    "device_price": (
        AUTO,
        "Price of a device-hour, such as 2.5 or 2.5EUR: for a budget in money, and logged with runs.",
    ),
    "stop": (
        "answer",
        "When to stop: answer (once every method is decided), or budget (once it is spent, for narrower intervals).",
    ),
}
TUNING = {
    "tune": (
        NONE,
        "Device-hours of trials for each variant, such as 2, or money, to find its settings before the first round; "
        "none: those of the arm.",
    ),
    "trials": (
        AUTO,
        "Trials of each study at most, or with rungs their cost in trainings on all items; auto: as many as tune pays "
        "for.",
    ),
    "space": TUNE_OPTIONS["space"],
    "rungs": ("2", TUNE_OPTIONS["rungs"][1]),
}
"""Options of the studies that find the settings."""
STOPS = ("answer", "budget")
OPTIONS = {
    "file": (NONE, "YAML file of an experiment, whose arms are the methods. Instead of variant and the other options."),
    **{name: entry for name, entry in STUDY.items() if name != "seed"},
    **RULE,
    **BUDGET,
    **TUNING,
    "register": (
        "auto",
        "Name in MLflow's Model Registry for the adapter of the method to take, followed by the language; none: do not "
        "register; auto: task and model.",
    ),
    "dry_run": ("false", "Print the plan and stop: true or false."),
    **WORKERS,
}
COMMAND = Command(
    "compare",
    "Compare methods in rounds of seeds, and say which to use.\n\nWith tune, studies find the settings of each variant "
    "first. In each round the methods that are not decided yet train the same seed. It ends when every method is shown "
    "to be worse than the best or level with it, when the budget is spent, or after max_seeds. Any number of processes "
    "may work on one comparison, and the same command resumes it.",
    OPTIONS,
    groups={
        "Comparison": ("file", "variant", "arm", *RULE),
        "Budget": tuple(BUDGET),
        "Tuning": tuple(TUNING),
        **{
            title: [name for name in names if name in OPTIONS and name not in ("variant", "arm", "seed", *BUDGET)]
            for title, names in GROUPS.items()
            if title != "Comparison"
        },
        "Output": ("register", "dry_run"),
        "Workers": tuple(WORKERS),
    },
    choices={
        **{name: values for name, values in CHOICES.items() if name in OPTIONS},
        "file": FILE,
        "variant": ("all", *(name for name, variant in CATALOGUE.items() if variant.trains)),
        "task": PROMPTED,
        "model": FOLDER,
        "data_dir": FOLDER,
        "primary": PRIMARIES,
        "stop": STOPS,
        "space": KINDS,
        "dry_run": BOOLEANS,
        "engine": ENGINES,
    },
    examples=(
        "whichlora compare --variant lora,dora,vera --budget 2",
        "whichlora compare --variant lora,dora,vera --budget 20 --tune 2",
        "whichlora compare --file experiments/pocket.yaml --margin 2 --dry_run true",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and print the answer. Return the exit status: 2 for bad options, 1 if runs have no result."""
    texts = COMMAND.read(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    quiet()
    return guarded(lambda: _compare(texts), texts)


def _compare(texts: Mapping[str, str]) -> int:
    distributed.check_starts_alone("compare")
    engine = engine_of(texts["engine"], texts["workers"])
    dry_run = parse_boolean("dry_run", texts["dry_run"])
    stop = check_choice("stop", texts["stop"], STOPS)
    budget = device_seconds(texts["budget"], texts["device_price"])
    if stop == "budget" and budget is None:
        raise OptionError("budget", texts["budget"], "must be given with stop=budget")
    seconds = device_seconds(texts["tune"], texts["device_price"], option="tune")
    check_pack(texts["pack"])
    rule = _rule(texts)
    register = parse_unless(NONE, check_model_name, "register", texts["register"])
    _check_source(texts)
    with announced("Preparing the comparison: packages, items of the task and shape of the model.", logged=True):
        # pandas, torch, Optuna and MLflow take seconds to import, so options are checked first.
        from comparing.methods import read_file, read_variants
        from comparing.pipeline import Request, run_comparison
        from comparing.studies import Studies, read_studies

        subject: Comparison | Studies
        given = {name: texts[name] for name in STUDY if name != "seed"}
        given["device_price"] = price_of_runs(texts["device_price"])
        if texts["file"] != NONE:
            subject = read_file(texts["file"], rule, given=texts["seed"] != RULE["seed"][0])
        elif seconds is not None:
            studied = {**given, **{name: texts[name] for name in TUNING}}
            subject = read_studies(studied, rule, seconds=seconds, budget=budget)
        else:
            subject = read_variants(given, rule)
    request = Request(
        budget=budget,
        stop=stop,
        engine=engine,
        pack=texts["pack"],
        dry_run=dry_run,
        register=register,
        arguments=_changed(texts),
    )
    return run_comparison(subject, request)


def _rule(texts: Mapping[str, str]) -> Rule:
    return Rule(
        seeds=parse_seeds(texts["seed"]),
        max_seeds=parse_integer("max_seeds", texts["max_seeds"], 3, 1000),
        margin=parse_number("margin", texts["margin"], above=0, high=100, unit=" of points"),
        confidence=parse_number("confidence", texts["confidence"], above=0.5, high=0.9999),
        primary=check_choice("primary", texts["primary"], PRIMARIES),
    )


def _check_source(texts: Mapping[str, str]) -> None:
    """Check that the methods come from the command line or from a file, and not from both."""
    if (texts["file"] == NONE) == (texts["variant"] == NONE):
        allowed = "must be two or more variants separated by commas, or all, or give file=FILE.yaml instead"
        if texts["file"] != NONE:
            allowed = "must be none with a file, whose arms are the methods"
        raise OptionError("variant", texts["variant"], allowed)
    if texts["file"] != NONE:
        for name, (default, _) in STUDY.items():
            if name not in ("seed", "variant") and texts[name] != default:
                raise OptionError(name, texts[name], f"must be set in the file: {texts['file']} says what the runs are")
    _check_tuning(texts)


def _check_tuning(texts: Mapping[str, str]) -> None:
    """Check that the options of tuning are given with variants whose settings are to be found."""
    if texts["tune"] == NONE:
        for name, (default, _) in TUNING.items():
            if texts[name] != default:
                raise OptionError(name, texts[name], f"must be {default} without tune")
    elif texts["file"] != NONE:
        allowed = "must be none with a file, whose arms have their settings; give variant instead"
        raise OptionError("tune", texts["tune"], allowed)
    elif texts["arm"] != STUDY["arm"][0]:
        allowed = f"must be {STUDY['arm'][0]} with tune: a study tries the recommended values anyway"
        raise OptionError("arm", texts["arm"], allowed)


def _changed(texts: Mapping[str, str]) -> list[str]:
    """Return the options that differ from their defaults as arguments, except those that choose the workers."""
    changed = {n: text for n, text in texts.items() if n not in ("engine", "workers") and text != OPTIONS[n][0]}
    return [part for name, text in changed.items() for part in (f"--{name}", text)]


if __name__ == "__main__":
    exit_with(main)
