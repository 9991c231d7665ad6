"""Resolves the hyperparameters of an arm, the linear layers to adapt, and the rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from whichlora.config.options import RunOptions
from whichlora.data.tasks import Task
from whichlora.errors import OptionError
from whichlora.models.loading import ModelShape
from whichlora.variants import Hyperparameters, Variant


def arm_hyperparameters(
    variant: Variant, arm: str, *, learning_rate: float | None = None, task: Task | None = None
) -> Hyperparameters | None:
    """Return the hyperparameters of a variant in an arm; None for `none`, which trains nothing.

    In the arm `recommended`, values that the variant has for `task` take precedence over its general ones. The arm
    `tuned` stands for a study's trial; values that the study did not choose are those of the arm `matched`.

    Args:
        learning_rate: the learning rate set by the user or the study. Required in the arm `tuned`, and in the arm
            `matched` for variants without a learning rate from the equal sweep.

    Raises:
        OptionError: The arm has no learning rate for the variant.
    """
    if variant.recommended is None:
        return None
    if arm == "recommended":
        return variant.recommended_for.get(task.name, variant.recommended) if task else variant.recommended
    if arm == "tuned" and learning_rate is None:
        raise OptionError("learning_rate", "auto", "the arm tuned needs the values that a study found; run tune first")
    rate = learning_rate or variant.matched_learning_rate
    if rate is None:
        allowed = f"no equal sweep yet for {variant.name}; set learning_rate or use arm=recommended"
        raise OptionError("learning_rate", "auto", allowed)
    return Hyperparameters(
        rank=variant.matched_rank,
        alpha=variant.matched_alpha if variant.has_alpha else None,
        learning_rate=rate,
        epochs=1,
        batch_size=4,
        warmup=0.05,
        source="equal for every variant; learning rate from an equal sweep (docs/learning-rates.md)",
    )


def run_hyperparameters(options: RunOptions, variant: Variant, task: Task) -> Hyperparameters | None:
    """Return the arm's hyperparameters with the options that override them; None for `none`, which trains nothing.

    Rank, modules, and an alpha for which the options have a rule are those of the arm: `resolve_rank`,
    `resolve_modules` and `resolve_alpha` resolve them for a model.

    Raises:
        OptionError: the arm has no learning rate for the variant.
    """
    values = arm_hyperparameters(variant, options.arm, learning_rate=options.learning_rate, task=task)
    if values is None:
        return None
    names = ("alpha", "dropout", "learning_rate", "epochs", "batch_size", "warmup", "scheduler", "weight_decay")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if isinstance(given.get("alpha"), str):
        del given["alpha"]
    return replace(values, **given)


def resolve_modules(selection: str | tuple[str, ...], shape: ModelShape, *, model: str) -> tuple[str, ...]:
    """Return the names of the model's linear layers that `selection`, "all-linear" or a list of names, selects.

    Raises:
        OptionError: A name is not in the model (the message lists those that are), or the model has no linear layers.
    """
    names = shape.module_names()
    if not names:
        allowed = "has no torch.nn.Linear in its decoder blocks (GPT-2 uses Conv1D); only variants full and none work"
        raise OptionError("model", model, allowed)
    if selection == "all-linear":
        return tuple(names)
    requested = [p.strip() for p in selection.split(",")] if isinstance(selection, str) else list(selection)
    missing = [name for name in requested if name not in names]
    if missing:
        raise OptionError(
            "target_modules",
            ",".join(requested),
            f"{missing[0]} is not in the model; allowed are auto, all-linear or names from {', '.join(names)}",
        )
    return tuple(name for name in names if name in requested)


def adapted_shapes(shape: ModelShape, modules: tuple[str, ...], layers: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return (in_features, out_features) of the linear layers to adapt, by full name.

    Args:
        modules: names of linear layers within a decoder block, such as `q_proj`.
        layers: decoder blocks, counted from 0.
    """
    return {
        name: size
        for name, size in shape.linears.items()
        if name.rpartition(".")[2] in modules and any(name.startswith(f"{shape.blocks}.{n}.") for n in layers)
    }


def resolve_rank(
    variant: Variant,
    hyperparameters: Hyperparameters,
    requested: int | None,
    shapes: Mapping[str, tuple[int, int]],
    variant_options: Mapping[str, Any],
) -> int | None:
    """Return the requested rank, or the arm's rank capped to what the layers allow; None for variants without a rank.

    Args:
        shapes: the adapted layers by name, as (in_features, out_features).

    Raises:
        OptionError: The rank does not fit the layers.
    """
    if not variant.has_rank:
        return None
    assert hyperparameters.rank is not None
    rank = min(hyperparameters.rank, variant.rank_limit(shapes)) if requested is None else requested
    problem = variant.rank_problem(rank, shapes, variant_options)
    if problem:
        raise OptionError("rank", rank, problem)
    return rank
