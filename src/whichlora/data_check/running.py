"""Says what runs on a task's data will train on, by the share of the target language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from whichlora.config.options import parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.data.mixture import target_count, trained_count
from whichlora.data.targets import target_languages
from whichlora.data.tasks import PairTask, Task
from whichlora.data_check.inventory import Data
from whichlora.text_tables import table
from whichlora.training.trainer import total_steps

RATIOS = (0.0, 0.01, 0.1, 0.5)


def plan_of(task: Task, language: str, texts: Mapping[str, str], data: Data) -> Plan:
    """Return the plan of a run with a target language, at the default ratio, or at 0 if it has no training items.

    Raises:
        OptionError: such a run is not possible.
    """
    trainable = all(data[code]["train"] for code in target_languages(task, language))
    ratio = {} if trainable or not task.source else {"tl_ratio": "0"}
    return resolve(parse_options({**texts, **ratio, "language": language}))


def training_table(task: Task, plans: Mapping[str, Plan], data: Data) -> str:
    """Return the numbers of training items by target language and ratio, with those of validation and test."""
    head = ("target", "tl_ratio", "source items", "target items", "steps", "validation", "test", "")
    rows: list[Sequence[object]] = [head]
    for language, plan in plans.items():
        for ratio in RATIOS if task.source and not isinstance(task, PairTask) else [1.0]:
            rows.append((language, f"{ratio:g}", *_row(task, language, ratio, plan, data)))
    return table(rows)


def _row(task: Task, language: str, ratio: float, plan: Plan, data: Data) -> tuple[str, ...]:
    spec = plan.spec
    n_target = target_count(ratio, spec.train_size)
    if ratio and not n_target:
        return *"-----", f"less than one item of {spec.train_size:,}"
    if n_target and not all(data[code]["train"] for code in target_languages(task, language)):
        return *"-----", f"no training items in {language}"
    n_source = trained_count(ratio, spec.train_size, spec.composition) - n_target
    steps = total_steps(replace(spec, tl_ratio=ratio)) if plan.variant.trains else 0
    validation = "+".join(f"{len(items):,}" for items in plan.mixture.validation.values())
    tests = "+".join(f"{len(test.items):,}" for test in plan.tests.values())
    return f"{n_source:,}", f"{n_target:,}", f"{steps:,}", validation, tests, ""
