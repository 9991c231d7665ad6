"""Attaches a variant to a base model, saves what was trained, and loads it back with plain PEFT."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.data.batching import collate, to_device
from whichlora.models.loading import current_device, load_model
from whichlora.training.objectives import objective_of
from whichlora.training.verification import base_digests, observe, prove_attached
from whichlora.variants import AdapterSettings
from whichlora.variants.witness import Evidence

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from whichlora.config.plan import Plan

START_ITEMS, START_BATCH = 512, 8
"""Training items that a start from data may look at, and how many at a time: PEFT hashes the first batch's activations
number by number, which takes minutes where it is large."""
INITIAL = "initial"
"""Subfolder for the adapter as it was attached, where saving needs it."""


def attach(base: PreTrainedModel, plan: Plan, *, total_steps: int) -> tuple[Any, Evidence, int]:
    """Return the model to train, the evidence to judge it by, and its number of trainable parameters.

    The caller has seeded torch. The base is changed where the variant says so.

    Raises:
        ProofError: what was attached is not what the spec asks for.
    """
    spec, variant = plan.spec, plan.variant
    if variant.trains_whole_model:
        model: Any = base
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        unreached = objective_of(plan).unreached(model)
        for parameter in unreached:
            parameter.requires_grad_(False)
        evidence = Evidence(settings=None, base={})
        expected = plan.shape.parameters - sum(p.numel() for p in unreached)
        return model, evidence, prove_attached(model, variant, evidence, expected=expected)

    from peft import get_peft_model

    assert spec.dropout is not None
    assert variant.build
    assert variant.expected_parameters
    shapes = plan.adapted
    settings = AdapterSettings(
        rank=spec.rank or 0,
        alpha=spec.alpha,
        dropout=spec.dropout,
        target_modules=tuple(shapes),
        options=spec.variant_options,
        seed=spec.seed,
        total_steps=total_steps,
    )
    evidence = Evidence(settings=settings, base=base_digests(base, list(shapes)))
    config = variant.build(settings)
    if variant.fully_trained:
        config.modules_to_save = list(variant.fully_trained)
    model = get_peft_model(base, config)
    if variant.after_attach is not None:
        variant.after_attach(model)
    expected = variant.expected_parameters(shapes, settings.rank, spec.variant_options) + sum(
        p.numel()
        for name, module in base.named_modules()
        if name.rpartition(".")[2] in variant.fully_trained
        for p in module.modules_to_save["default"].parameters()  # type: ignore[union-attr]
    )
    count = prove_attached(model, variant, evidence, expected=expected)
    if variant.initialize is not None:
        variant.initialize(model, _first_batches(plan), spec.variant_options)
        count = observe(model, variant, evidence)
    if variant.start_witness is not None:
        variant.start_witness(model, evidence)
    return model, evidence, count


def _first_batches(plan: Plan) -> list[dict[str, Tensor]]:
    """Return training items for a start that is made from data: the same ones whenever the run is gone on with."""
    encoder = plan.encoder()
    items = random.Random(plan.spec.seed).sample(plan.mixture.train, len(plan.mixture.train))[:START_ITEMS]
    pad = int(plan.tokenizer.pad_token_id)  # type: ignore[arg-type]
    batches = [items[i : i + START_BATCH] for i in range(0, len(items), START_BATCH)]
    return [to_device(collate([encoder.example(item) for item in batch], pad), current_device()) for batch in batches]


def save_initial(model: Any, plan: Plan, folder: Path) -> None:
    """Keep the adapter as attached, which `save` needs to express a change of the base as an adapter."""
    if plan.variant.converts_base_change:
        # As saved here it must not be initialised again when PEFT loads it for the difference.
        config = model.peft_config["default"]
        kept, config.init_lora_weights = config.init_lora_weights, True
        model.save_pretrained(folder / INITIAL)
        config.init_lora_weights = kept


def save(model: Any, plan: Plan, folder: Path, *, initial: Path) -> None:
    """Save the adapter so that plain PEFT loads it on the plain base model; for `full`, the model."""
    if plan.variant.converts_base_change:
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial / INITIAL))
    else:
        model.save_pretrained(folder)


def load_saved(plan: Plan, folder: Path, *, base: PreTrainedModel | None) -> Any:
    """Return the plain base model with the saved adapter on it, as anyone would load it; for `full`, the model."""
    spec = plan.spec
    if plan.variant.trains_whole_model:
        from dataclasses import replace

        source = replace(plan.source, name_or_path=str(folder), revision=None)
        return load_model(source, precision=spec.precision, quantization="none")
    from peft import PeftModel

    assert base is not None
    return PeftModel.from_pretrained(base, str(folder))
