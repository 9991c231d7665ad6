"""Estimates the device-hours of runs on one A100 80 GB, the paper's device, by arithmetic.

`docs/device-hours.md` states the formula, where each number comes from, and what the estimate leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from whichlora.config.layers import parse_layers
from whichlora.config.outline import Outline, outline
from whichlora.config.plan import Plan
from whichlora.data.mixture import target_count, trained_count
from whichlora.data.targets import target_languages

DEVICE, UNKNOWN = "A100 80 GB", "-"
PEAK = 312e12
"""FLOP/s of an A100 in bf16 without sparsity (NVIDIA's data sheet)."""
UTILISATION = 0.35
"""Share of the peak that is assumed, in training and in scoring."""
OVERHEAD = 60.0
"""Assumed seconds of an adapter for all but training and scoring: loading the base model, saving, checks."""
TOKENS: Mapping[str, Mapping[str, float]] = {
    "xnli": {"en": 60, "ur": 126, "sw": 85, "hi": 106},
    "tydiqa": {"en": 177, "sw": 158, "bn": 863, "te": 890},
}
"""Mean tokens of an item, prompt and answer, by task and language: test items, with Llama 3's tokenizer."""
TEST_ITEMS: Mapping[str, Mapping[str, int]] = {"tydiqa": {"en": 440, "sw": 499, "bn": 113, "te": 669}}
"""Test items of tasks whose whole test set is scored, whatever its size."""


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """Number of parameters and of decoder blocks of a model."""

    parameters: int
    blocks: int

    @property
    def fills_the_device(self) -> bool:
        """Whether the assumed utilisation can be reached at all, which small models are far from."""
        return self.parameters >= 10**9


MODELS: Mapping[str, ModelSize] = {
    "meta-llama/Llama-3.1-8B": ModelSize(parameters=8_030_261_248, blocks=32),
    "meta-llama/Llama-3.1-8B-Instruct": ModelSize(parameters=8_030_261_248, blocks=32),
    "meta-llama/Llama-3.2-3B": ModelSize(parameters=3_212_749_824, blocks=28),
    "Qwen/Qwen3-8B-Base": ModelSize(parameters=8_190_735_360, blocks=36),
}
"""The paper's models."""


def device_hours(runs: Iterable[Outline], models: Mapping[str, ModelSize] = MODELS) -> float | None:
    """Return the hours of one A100 for runs, each of which is done once, as is each adapter's training.

    None if the size of a model, or the tokens of a task in a language, are not known, or a model is too small.
    """
    seconds, known, trained = 0.0, set[str](), set[str]()
    for run in runs:
        if run.run in known:
            continue
        model, lengths = models.get(run.options.model), item_lengths(run)
        if model is None or lengths is None or not model.fills_the_device:
            return None
        tokens = {part: {role: n * lengths[role] for role, n in roles.items()} for part, roles in items(run).items()}
        flops = _forward(model) * tokens["test"]["tl"]
        known.add(run.run)
        if run.adapter not in trained:
            trained.add(run.adapter)
            # English is scored once per adapter.
            flops += _forward(model) * (tokens["test"].get("en", 0.0) + sum(tokens["validation"].values()))
            flops += _training(run, model) * sum(tokens["training"].values())
            seconds += OVERHEAD
        seconds += flops / (PEAK * UTILISATION)
    return seconds / 3600


def plans_line(plans: Sequence[Plan]) -> str:
    """Return the estimate for resolved runs as a sentence; "" if it is not known."""
    models = {p.spec.model: ModelSize(parameters=p.shape.parameters, blocks=p.shape.n_layers) for p in plans}
    if not all(plan.task.name in TOKENS for plan in plans):
        return ""
    hours = device_hours([outline(plan.options, plan.spec.variant_options) for plan in plans], models)
    return "" if hours is None else f"On one {DEVICE}: about {hours_text(hours)} hours (docs/device-hours.md)."


def hours_text(hours: float | None) -> str:
    """Return hours with one decimal, or `UNKNOWN`."""
    return UNKNOWN if hours is None else f"{hours:,.1f}"


def _forward(model: ModelSize) -> float:
    """Return the FLOPs of a token's forward pass: a product and a sum a parameter."""
    return 2.0 * model.parameters


def _training(run: Outline, model: ModelSize) -> float:
    """Return the FLOPs of a token's training step.

    A backward pass costs as much as a forward pass for the gradients of activations, and as much again for those of
    weights. An adapter needs no gradients of the frozen weights, and none below the first block that it adapts.
    """
    if not run.variant.has_adapter:
        return 3 * _forward(model)
    first = min(parse_layers(run.options.layers, model.blocks) or (0,))
    return _forward(model) * (1 + (model.blocks - first) / model.blocks)


def item_lengths(run: Outline) -> dict[str, float] | None:
    """Return the mean tokens of an item by role (`en`, `tl`), or None if they are not known."""
    tokens = TOKENS.get(run.task.name, {})
    found = {}
    for role, languages in run.task.roles(target_languages(run.task, run.options.language)).items():
        if not set(languages) <= set(tokens):
            return None
        found[role] = sum(tokens[code] for code in languages) / len(languages)
    return found


def items(run: Outline) -> dict[str, dict[str, float]]:
    """Return how many items a run reads in `training`, `validation` and `test`, by role, with repetitions.

    Validation items are read to select the checkpoint after each epoch, and those of all roles at the end.
    """
    sizes, roles = run.sizes, run.task.roles(target_languages(run.task, run.options.language))
    target = target_count(sizes.tl_ratio, sizes.train_size)
    source = trained_count(sizes.tl_ratio, sizes.train_size, sizes.composition) - target
    trained = {"en": source, "tl": target}
    read = {role: 1 + run.epochs * (sizes.select_on in (role, "mean")) for role in roles}
    return {
        "training": {role: run.epochs * trained[role] for role in roles},
        "validation": {role: sizes.validation_size * times for role, times in read.items()},
        "test": {role: _test_items(run, languages) for role, languages in roles.items()},
    }


def _test_items(run: Outline, languages: Sequence[str]) -> float:
    if run.sizes.test_size is not None:
        return run.sizes.test_size
    return sum(TEST_ITEMS[run.task.name][code] for code in languages)
