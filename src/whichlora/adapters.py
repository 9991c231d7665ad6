"""Attaches a variant to a base model, saves what was trained, and loads it back with plain PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora import models
from whichlora.proof import Evidence, base_digests, prove_attached
from whichlora.variants import AdapterSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from whichlora.resolve import Plan

INITIAL = "initial"
"""Subfolder for the adapter as it was attached, where saving needs it."""


def attach(base: PreTrainedModel, plan: Plan, *, total_steps: int) -> tuple[Any, Evidence, int]:
    """Return the model to train, the evidence to judge it by, and its number of trainable parameters.

    The caller has seeded torch. The base is changed where the variant says so.

    Raises:
        ProofError: what was attached is not what the spec asks for.
    """
    spec, variant = plan.spec, plan.variant
    if variant.kind == "full":
        model: Any = base
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        evidence = Evidence(settings=None, base={})
        return model, evidence, prove_attached(model, variant, evidence, expected=plan.shape.parameters)

    from peft import get_peft_model

    assert spec.rank is not None
    assert spec.dropout is not None
    assert variant.build
    assert variant.expected_parameters
    shapes = plan.adapted
    settings = AdapterSettings(
        rank=spec.rank,
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
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's number of ranks, which PEFT makes trainable in casting it from bf16
            parameter.requires_grad_(False)
    expected = variant.expected_parameters(shapes, spec.rank, spec.variant_options) + sum(
        p.numel()
        for name, module in base.named_modules()
        if name.rpartition(".")[2] in variant.fully_trained
        for p in module.modules_to_save["default"].parameters()  # type: ignore[union-attr]
    )
    return model, evidence, prove_attached(model, variant, evidence, expected=expected)


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


def reload(plan: Plan, folder: Path) -> Any:
    """Return the plain base model with the saved adapter on it, as anyone would load it; for `full`, the model."""
    spec = plan.spec
    if plan.variant.kind == "full":
        from dataclasses import replace

        source = replace(plan.source, place=str(folder), revision=None)
        return models.load_model(source, precision=spec.precision, quantization="none")
    from peft import PeftModel

    base = models.load_model(plan.source, precision=spec.precision, quantization=spec.quantization)
    return PeftModel.from_pretrained(base, str(folder))
