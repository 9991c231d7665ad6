"""Hyperparameters of an arm, and which layers of a model are adapted at which rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from whichlora.data.tasks import Task
from whichlora.errors import OptionError
from whichlora.models.loading import ModelShape
from whichlora.variants import Hyperparameters, Variant


def arm_values(
    variant: Variant, arm: str, *, learning_rate: float | None = None, task: Task | None = None
) -> Hyperparameters | None:
    """Return the hyperparameters of a variant in an arm; None for `none`, which trains nothing.

    The values of a task's own source, where `task` has them for the variant, are the recommended ones.

    `learning_rate` is the one that is given, if any; it is needed where the equal sweep has none, and in the arm
    `tuned`, whose values are those of a study's trial: what the study did not choose is as in the arm `matched`.

    Raises:
        OptionError: the arm has no learning rate for the variant.
    """
    if variant.recommended is None:
        return None
    if arm == "recommended":
        return variant.recommended_for.get(task.name, variant.recommended) if task else variant.recommended
    if arm == "tuned" and learning_rate is None:
        raise OptionError("learning_rate", "auto", "the arm tuned needs the values that a study found; run tune first")
    rate = learning_rate or variant.matched_learning_rate
    if rate is None:
        allowed = f"no equal sweep yet for {variant.name}; give learning_rate or use arm=recommended"
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


def resolve_modules(wanted: str | tuple[str, ...], shape: ModelShape, *, model: str) -> tuple[str, ...]:
    """Return the names of linear layers that "all-linear" or a list of names stands for on a model.

    Raises:
        OptionError: a name is not one of the model's, which the message lists, or it has no linear layers.
    """
    names = shape.module_names()
    if not names:
        allowed = "has no torch.nn.Linear in its decoder blocks to adapt (GPT-2's Conv1D is none); full and none work"
        raise OptionError("model", model, allowed)
    if wanted == "all-linear":
        return tuple(names)
    parts = [p.strip() for p in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    missing = [part for part in parts if part not in names]
    if missing:
        raise OptionError(
            "target_modules",
            ",".join(parts),
            f"{missing[0]} is not in the model; allowed are all-linear or names from {', '.join(names)}",
        )
    return tuple(name for name in names if name in parts)


def adapted_shapes(shape: ModelShape, modules: tuple[str, ...], layers: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return the linear layers of these names in these decoder blocks."""
    return {
        name: size
        for name, size in shape.linears.items()
        if name.rpartition(".")[2] in modules and any(name.startswith(f"{shape.blocks}.{n}.") for n in layers)
    }


def rank_of(
    variant: Variant,
    arm: Hyperparameters,
    given: int | None,
    shapes: Mapping[str, tuple[int, int]],
    variant_options: Mapping[str, Any],
) -> int | None:
    """Return the rank: the one that is given, or the arm's as far as the layers allow; None where there is none.

    Args:
        shapes: the adapted layers by name, as (in_features, out_features).

    Raises:
        OptionError: the rank does not fit the layers.
    """
    if not variant.has_rank:
        return None
    assert arm.rank is not None
    rank = min(arm.rank, variant.rank_limit(shapes)) if given is None else given
    problem = variant.rank_problem(rank, shapes, variant_options)
    if problem:
        raise OptionError("rank", rank, problem)
    return rank
