"""Checks the options against the task and the variant, before data and model are read."""

from __future__ import annotations

from whichlora.config.options import RunOptions, check_task
from whichlora.config.retention import retained_task
from whichlora.data import mixture
from whichlora.data.tasks import PairTask, Task
from whichlora.errors import OptionError
from whichlora.evaluation.scoring_methods import prompt_scoring
from whichlora.models.loading import check_quantization
from whichlora.variants import Variant


def check_compatibility(options: RunOptions, variant: Variant, task: Task) -> Task | None:
    """Check the options that depend on variant and task alone, and return the retention task, if any.

    Raises:
        OptionError: An option does not apply to the task or the variant, or they do not support its value.
    """
    check_task(task, language=options.language, difficulty=options.difficulty)
    task.check_prompts(
        [code for role in task.roles(mixture.target_languages(task, options.language)).values() for code in role]
    )
    if not isinstance(task, PairTask):
        prompt_scoring(task, options.scoring)
    retention_task = retained_task(task, options)
    _check_variant(options, variant)
    return retention_task


def _check_variant(options: RunOptions, variant: Variant) -> None:
    """Check that the options that are set apply to the variant."""
    set_options = [name for name in ("rank", "alpha", "target_modules") if getattr(options, name) is not None]
    set_options += ["layers"] if options.layers != "all" else []
    if not variant.has_adapter and set_options:
        allowed = f"variant {variant.name} has no adapter; remove the option"
        raise OptionError(set_options[0], getattr(options, set_options[0]), allowed)
    set_options = [name for name in ("learning_rate", "epochs", "batch_size") if getattr(options, name) is not None]
    if not variant.trains and set_options:
        allowed = f"variant {variant.name} trains nothing; remove the option"
        raise OptionError(set_options[0], getattr(options, set_options[0]), allowed)
    for name, supported in (("rank", variant.has_rank), ("alpha", variant.has_alpha)):
        if getattr(options, name) is not None and not supported:
            raise OptionError(name, getattr(options, name), f"variant {variant.name} has no {name}; remove the option")
    if options.quantization != "none" and not variant.quantizable:
        allowed = f"variant {variant.name} needs weights in full precision; allowed is none"
        raise OptionError("quantization", options.quantization, allowed)
    check_quantization(options.quantization)


def difficulty_of(options: RunOptions, task: Task) -> str:
    """Return the difficulty that the options select, by default the task's first."""
    return options.difficulty or task.difficulties[0]
