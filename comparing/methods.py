"""Turns variants, or the arms of an experiment's file, into the methods of a comparison."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from analysis.columns import CONDITIONS, SETTINGS
from analysis.runs.methods import name_methods, name_settings
from analysis.runs.tidy import NUMBERS
from comparing.comparison import Cell, Comparison
from comparing.rule import Rule
from tuning.tuned import Tuned
from whichlora.config.options import RunOptions, check_data_dir, check_task, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.data.tasks import get_task, task_class
from whichlora.errors import OptionError, check_choice
from whichlora.experiment.experiment_file import read_experiment
from whichlora.experiment.grid import each_run
from whichlora.option_lists import parse_list, within
from whichlora.tracking.run_log import param_text
from whichlora.variants import CATALOGUE, get_variant, variant_names

_Run = tuple[RunOptions, Mapping[str, Any]]
"""The options of a run and the variant's own settings."""
_Block = tuple[str, str, float]
"""Setting, language and ratio."""
SEVERAL = ("language", "tl_ratio")
"""Options that may have several values on the command line, separated by spaces."""


def read_variants(texts: Mapping[str, str], rule: Rule) -> Comparison:
    """Return the comparison of variants with the options of the command.

    Args:
        texts: the options of `run` without `seed`, unparsed, with variants separated by commas.

    Raises:
        OptionError: a value is not allowed, by itself or together with the others.
    """
    rule.check()
    several = {name: texts[name].split() or [""] for name in SEVERAL}
    runs: list[_Run] = []
    for values in itertools.product(*several.values()):
        for variant in _variants(texts["variant"]):
            given = {**texts, **dict(zip(several, values, strict=True)), "variant": variant}
            with naming_all(texts):
                options = parse_options({**given, "seed": str(rule.rounds[0])})
                task_class(options.task, prompted=True)  # only these have the test score that is compared
                check_data_dir(options.data_dir)
                task = get_task(options.task, options.prompt_language)
                check_task(task, language=options.language, difficulty=options.difficulty)
            runs.append((options, {}))
    return comparison_of(None, "", runs, rule, ("variant", texts["variant"]))


@contextlib.contextmanager
def naming_all(texts: Mapping[str, str]) -> Iterator[None]:
    """Let an error of one of several values of an option of `SEVERAL` name the whole text, too."""
    try:
        yield
    except OptionError as error:
        raise within(error, error.option, texts[error.option]) if error.option in SEVERAL else error from error


def read_file(file: str, rule: Rule, *, given: bool) -> Comparison:
    """Return the comparison of the arms of an experiment's file, with the languages and ratios of its defaults.

    Args:
        given: whether the seeds of `rule` were given; otherwise rounds begin with those of the file.

    Raises:
        OptionError: the file is missing or malformed, or one of its runs has an option that is not allowed.
    """
    experiment = read_experiment(file)
    for arm, options in enumerate(experiment.arms):
        if "seed" in options:
            experiment.fail(arm, "seed", "an arm must not set the seed: in a comparison all methods have the same")
    if "seed" in experiment.defaults and not given:
        rule = rule.beginning_with([int(text) for text in experiment.defaults["seed"]])
    rule.check()
    first = {**experiment.defaults, "seed": [str(rule.rounds[0])]}
    experiment = replace(experiment, defaults=first)
    runs: list[_Run] = each_run(experiment, _checked)
    plans = each_run(experiment, resolve)
    return comparison_of(experiment.name, experiment.about, runs, rule, ("file", file), plans=plans)


def _checked(options: RunOptions, settings: Mapping[str, Any]) -> _Run:
    task_class(options.task, prompted=True)
    _check_trains(options.variant)
    return options, settings


def _variants(text: str) -> list[str]:
    if text == "all":
        return [name for name, variant in CATALOGUE.items() if variant.trains]
    allowed = [*(name for name in variant_names() if get_variant(name).trains), "all"]
    parse = partial(check_choice, choices=allowed, or_else="or none with a file")
    return list(dict.fromkeys(parse_list("variant", text, parse)))


def _check_trains(variant: str) -> None:
    if not get_variant(variant).trains:
        allowed = "trains nothing; the scores of the base model are logged with every run"
        raise OptionError("variant", variant, allowed)


def comparison_of(
    experiment: str | None,
    about: str,
    runs: Sequence[_Run],
    rule: Rule,
    source: tuple[str, str],
    *,
    plans: Sequence[Plan] = (),
    tuned: Sequence[Tuned] = (),
    tuning_seconds: float = 0.0,
) -> Comparison:
    """Return the comparison of runs with the first seed.

    Args:
        source: the option that they come from and its value, for messages.
        plans: those of the runs; empty to resolve them here.
        tuned: what tuning has found, for each run; empty if it was not used.
        tuning_seconds: device-seconds of tuning.

    Raises:
        OptionError: they are not two or more different methods with the same languages and ratios in one precision.
    """
    plans = plans or [resolve(*run) for run in runs]
    known: dict[str, tuple[_Run, Plan]] = {}
    for run, plan in zip(runs, plans, strict=True):
        known.setdefault(plan.spec.fingerprint, (run, plan))
    # One method may have its recommended values in one language, and tuned ones in another.
    named = _names([plan for _, plan in known.values()], source, {"arm": "tuned"} if tuned else {})
    _check(named, [plan for _, plan in known.values()], rule, source)
    cells = [
        Cell(method=name, options=options, settings=settings)
        for (name, _), ((options, settings), _) in zip(named, known.values(), strict=True)
    ]
    return Comparison(
        experiment=experiment,
        about=about,
        cells=tuple(cells),
        rule=rule,
        tuned=tuple(tuned),
        tuning_seconds=tuning_seconds,
    )


def _check(named: Sequence[tuple[str, _Block]], plans: Sequence[Plan], rule: Rule, source: tuple[str, str]) -> None:
    names = list(dict.fromkeys(name for name, _ in named))
    if len(names) < 2:
        raise OptionError(*source, f"must be two or more methods; there is {names[0]} alone")
    if rule.primary != "tl" and any(plan.task.source is None for plan in plans):
        raise OptionError("primary", rule.primary, "the task has no source language; allowed is tl")
    precisions = sorted({plan.spec.precision for plan in plans})
    if len(precisions) > 1:
        raise OptionError(*source, f"must have one precision, so that methods are comparable; has {precisions}")
    blocks = {block for _, block in named}
    for name in names:
        if {block for other, block in named if other == name} != blocks:
            allowed = f"all methods must have the same languages, ratios and other conditions; {name} lacks some"
            raise OptionError(*source, allowed)


def _names(plans: Sequence[Plan], source: tuple[str, str], same: Mapping[str, str]) -> list[tuple[str, _Block]]:
    """Return the method and the block of each plan, named as in the report of these runs.

    Args:
        same: values by which no methods are distinguished.

    Raises:
        OptionError: two methods are the same.
    """
    rows = []
    for plan in plans:
        texts = {name: param_text(value) for name, value in plan.spec.to_dict().items()}
        numbers = {name: float("nan") if texts[name] == "None" else float(texts[name]) for name in NUMBERS}
        more = {"source_language": plan.task.source or "none", "headline": plan.task.headline}
        rows.append({**texts, **numbers, **more, "adapter": plan.spec.training_fingerprint, **same})
    frame = pd.DataFrame(rows)
    frame = frame.assign(**{key: "" for key in (*SETTINGS, *CONDITIONS) if key not in frame})
    named, merged, _ = name_methods(name_settings(frame))
    if merged:
        raise OptionError(*source, f"two methods are the same: {merged[0]}")
    named = named.sort_index()
    blocks = zip(named["setting"], named["language"], named["tl_ratio"], strict=True)
    return [(str(method), block) for method, block in zip(named["method"], blocks, strict=True)]
