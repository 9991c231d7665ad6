"""Checks the options against the task and the variant, before data and model are read."""

from __future__ import annotations

from whichlora.config import alignment
from whichlora.config.options import RunOptions, check_task
from whichlora.config.retention import retained_task
from whichlora.data.mixture import COMPOSITIONS
from whichlora.data.targets import target_languages
from whichlora.data.tasks import PairTask, Task
from whichlora.errors import OptionError
from whichlora.evaluation.scoring_methods import prompt_scoring
from whichlora.models.loading import check_quantization
from whichlora.variants import Variant
from whichlora.variants.capabilities import lacks

_TRAINING = ("learning_rate", "epochs", "batch_size", "warmup", "scheduler", "weight_decay")


def check_compatibility(options: RunOptions, variant: Variant, task: Task) -> Task | None:
    """Check the options that depend on variant and task alone, and return the retention task, if any.

    Raises:
        OptionError: An option does not apply to the task or the variant, or they do not support its value.
    """
    check_task(task, language=options.language, difficulty=options.difficulty)
    task.check_prompts(
        [code for role in task.roles(target_languages(task, options.language)).values() for code in role]
    )
    if task.source is None:
        _check_without_source(options, task)
    if not isinstance(task, PairTask):
        prompt_scoring(task, options.scoring)
    retention_task = retained_task(task, options)
    alignment.check_options(options)
    _check_variant(options, variant)
    return retention_task


def _check_without_source(options: RunOptions, task: Task) -> None:
    """Check the options on the mixture of a task that has no source language, so target items only."""
    allowed = f"{task.name} has no source language; allowed "
    if options.tl_ratio not in (None, 1):
        raise OptionError("tl_ratio", f"{options.tl_ratio:g}", f"{allowed}are auto, 1")
    if options.composition != COMPOSITIONS[0]:
        raise OptionError("composition", options.composition, f"{allowed}is {COMPOSITIONS[0]}")
    if options.select_on not in (None, "tl"):
        raise OptionError("select_on", options.select_on, f"{allowed}are auto, tl")


def _check_variant(options: RunOptions, variant: Variant) -> None:
    """Check that the options that are set apply to the variant."""
    set_options = [name for name in ("rank", "alpha", "target_modules") if getattr(options, name) is not None]
    set_options += ["dropout"] if options.dropout else []  # no dropout is what methods without it have
    set_options += ["layers"] if options.layers != "all" else []
    if not variant.adapts_layers and set_options:
        allowed = f"variant {variant.name} has no adapter; remove the option"
        raise OptionError(set_options[0], getattr(options, set_options[0]), allowed)
    set_options = [name for name in _TRAINING if getattr(options, name) is not None]
    if not variant.trains and set_options:
        allowed = f"variant {variant.name} trains nothing; remove the option"
        raise OptionError(set_options[0], getattr(options, set_options[0]), allowed)
    has = {"rank": variant.has_rank, "alpha": variant.has_alpha}
    has |= {"dropout": not lacks(variant.name, "dropout")} if options.dropout else {}
    for name, supported in has.items():
        if getattr(options, name) is not None and not supported:
            raise OptionError(name, getattr(options, name), f"variant {variant.name} has no {name}; remove the option")
    if options.quantization != "none" and not variant.quantizable:
        allowed = f"variant {variant.name} needs weights in full precision; allowed is none"
        raise OptionError("quantization", options.quantization, allowed)
    check_quantization(options.quantization)


def difficulty_of(options: RunOptions, task: Task) -> str:
    """Return the difficulty that the options select, by default the task's first."""
    return options.difficulty or task.difficulties[0]
