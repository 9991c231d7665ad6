"""Outlines a run from its options alone: what it trains on and how often, and which runs and adapters are the same.

An outline needs neither the model nor the data, so it counts what an experiment takes before either is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from whichlora.config.compatibility import check_compatibility
from whichlora.config.forgetting import forgetting_texts
from whichlora.config.hyperparameters import run_hyperparameters
from whichlora.config.item_sizes import ItemSizes, item_sizes
from whichlora.config.options import COSTS, SCORED_BESIDE, RunOptions
from whichlora.config.spec import canonical_digest
from whichlora.config.variant_options import resolve_settings
from whichlora.data.targets import canonical_language
from whichlora.data.tasks import Task, get_task
from whichlora.variants import Variant, get_variant

_NOT_TRAINING = {"arm", "test_size", *SCORED_BESIDE}


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A run as far as its options tell.

    Attributes:
        epochs: passes over the training items; 0 for `none`, which trains nothing.
        run: digest that two options of one result share.
        adapter: digest that the runs of one adapter share; at ratio 0 it serves every target language.
    """

    options: RunOptions
    variant: Variant
    task: Task
    sizes: ItemSizes
    epochs: int
    run: str
    adapter: str


def outline(options: RunOptions, variant_options: Mapping[str, Any] | None = None) -> Outline:
    """Return the outline of a run.

    `variant_options` override the variant's own settings by name.

    Raises:
        OptionError: a value conflicts with another option, with the task or with the variant.
    """
    variant, task = get_variant(options.variant), get_task(options.task, options.prompt_language)
    settings = resolve_settings(variant, variant_options or {})
    check_compatibility(options, variant, task)
    forgetting_texts(task, options)
    options = replace(options, language=canonical_language(task, options.language))
    hyperparameters, sizes = run_hyperparameters(options, variant, task), item_sizes(options, task)
    values = {**vars(options), **asdict(sizes), "settings": dict(settings)}
    if hyperparameters is not None:
        given = {name: getattr(options, name) for name in ("rank", "alpha", "target_modules")}
        values |= {n: v for n, v in vars(hyperparameters).items() if given.get(n) is None and n != "source"}
    values = {name: value for name, value in values.items() if name not in COSTS}
    trained = {name: value for name, value in values.items() if name not in _NOT_TRAINING}
    if sizes.tl_ratio == 0 and sizes.select_on == "en":
        del trained["language"]
    return Outline(
        options=options,
        variant=variant,
        task=task,
        sizes=sizes,
        epochs=hyperparameters.epochs if hyperparameters else 0,
        run=canonical_digest(values),
        adapter=canonical_digest(trained),
    )
