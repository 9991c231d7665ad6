"""Attaches a variant's adapter to a base model, saves the trained adapter, and loads it with plain PEFT."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor
from torch.nn import Parameter
from transformers import PreTrainedModel

from whichlora.config.plan import Plan
from whichlora.data.batching import collate, to_device
from whichlora.errors import OptionError, ProofError
from whichlora.models.adapter_layers import adapter_modules, full_modules, trained_copy
from whichlora.models.checks import load_adapter
from whichlora.models.kernels.bf16 import compute_in_input_dtype
from whichlora.models.kernels.onednn import plain_linears
from whichlora.models.loading import ModelSource, current_device, load_model
from whichlora.models.published import published
from whichlora.training import full_layers
from whichlora.training.objectives import objective_of
from whichlora.training.verification import (
    base_digests,
    prove_attached,
    prove_finite,
    record_trainable,
    trainable_tensors,
)
from whichlora.variants import AdapterSettings
from whichlora.variants.witness import Evidence

ADAPTER_CONFIG = "adapter_config.json"
INITIAL_FOLDER = "initial"
"""Subfolder for the initial adapter; used only by variants with `converts_base_change`."""


def attach(
    base: PreTrainedModel, plan: Plan, *, total_steps: int, work: Path | None = None
) -> tuple[Any, Evidence, int]:
    """Attach the plan's adapter to `base`, and make the base weights trainable if the variant trains them all.

    The caller must seed torch for random initialisations. Variants with `changes_base` modify the base weights.

    Args:
        work: folder that records which layers the variant trains in full; None for no record.

    Returns:
        The model to train, the evidence for its verification, and its number of trainable parameters.

    Raises:
        ProofError: The attached adapter is not what the spec asks for.
    """
    spec, variant = plan.spec, plan.variant
    weights = list(base.parameters()) if variant.trains_whole_model else []
    unused = objective_of(plan).unused_parameters(base) if variant.trains_whole_model else []
    expected = plan.shape.parameters - sum(p.numel() for p in unused) if variant.trains_whole_model else 0
    if variant.build is None:
        _train_weights(weights, unused)
        evidence = Evidence(settings=None, base={})
        return base, evidence, prove_attached(base, variant, evidence, expected=expected)

    assert spec.dropout is not None
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
        shapes=shapes,
    )
    evidence = Evidence(settings=settings, base=base_digests(base, list(shapes)))
    full = full_layers.choose(base, plan, settings, work).names if variant.fully_trained else ()
    others = {name: size for name, size in shapes.items() if name not in full}
    config = variant.build(replace(settings, target_modules=tuple(others)))
    if full:
        config.modules_to_save = list(full)
        if not others:
            config.target_modules = DUMMY_TARGET_MODULES
    if variant.prepare is not None:
        variant.prepare(base, config, full_layers.backward_passes(base, plan), _first_batches(plan))
    with plain_linears(base):
        model = get_peft_model(base, config)
    if full:
        _prepare_full(model, full, adapted=others)
    if variant.after_attach is not None:
        variant.after_attach(model)
    _train_weights(weights, unused)
    _train_in_fp32(model)
    expected += variant.expected_parameters(others, settings.rank, spec.variant_options)
    expected += sum(n_in * n_out for n_in, n_out in (shapes[name] for name in full))
    count = prove_attached(model, variant, evidence, expected=expected)
    if variant.initialize is not None:
        variant.initialize(model, _first_batches(plan), spec.variant_options)
        _train_in_fp32(model)
        count = record_trainable(model, variant, evidence)
    if variant.start_witness is not None:
        variant.start_witness(model, evidence)
    return model, evidence, count


def _train_weights(weights: Iterable[Parameter], unused: Iterable[Parameter]) -> None:
    """Make weights of the base model trainable, except those that the loss does not depend on."""
    for parameter in weights:
        parameter.requires_grad_(True)
    for parameter in unused:
        parameter.requires_grad_(False)


def _prepare_full(model: Any, full: Collection[str], *, adapted: Collection[str]) -> None:
    """Let the weights of the layers `full` be trained, and not their biases, which adapters leave alone too.

    Raises:
        ProofError: PEFT, which matches the ends of names, trains other layers in full or adapts others.
    """
    found = dict(full_modules(model))
    if found.keys() != set(full) or {name for name, _ in adapter_modules(model)} != set(adapted):
        raise ProofError(
            f"PEFT trains {len(found)} layers in full and adapts others; {len(full)} and {len(adapted)} were chosen"
        )
    for layer in map(trained_copy, found.values()):
        if layer.bias is not None:
            layer.bias.requires_grad_(False)
        compute_in_input_dtype(layer)


def _train_in_fp32(model: Any) -> None:
    """Cast trainable tensors to fp32; in bf16 small updates would be lost.

    PEFT does so as it wraps the layers, but not for those that EVA's initialisation makes anew with another rank.
    """
    for parameter in trainable_tensors(model).values():
        parameter.data = parameter.data.float()


def _first_batches(plan: Plan) -> list[dict[str, Tensor]]:
    """Return batches of training items for a data-driven initialisation."""
    encoder = plan.encoder()
    pad = int(plan.tokenizer.pad_token_id)  # type: ignore[arg-type]
    return [
        to_device(collate([encoder.example(item) for item in batch], pad), current_device())
        for batch in full_layers.first_items(plan)
    ]


def save_initial(model: Any, plan: Plan, folder: Path) -> None:
    """Save the initial adapter, if `save` needs it to express a change of the base weights as an adapter."""
    if plan.variant.converts_base_change:
        # With True, PEFT does not repeat the initialisation when it loads this adapter to compute the difference.
        config = model.peft_config["default"]
        initialization, config.init_lora_weights = config.init_lora_weights, True
        model.save_pretrained(folder / INITIAL_FOLDER)
        config.init_lora_weights = initialization


def save(model: Any, plan: Plan, folder: Path, *, initial: Path) -> None:
    """Save the adapter so that plain PEFT can load it onto the original base model; save a model trained as a whole.

    The adapter's configuration names the base model as others find it (`models.published`), not where it is here.
    `initial` is the folder that `save_initial` wrote to, and that of the record of layers that are trained in full.

    Raises:
        NonFiniteError: A trained tensor is not finite.
    """
    prove_finite(trainable_tensors(model).items(), "in the trained model, which is not saved")
    if plan.variant.save is not None:
        plan.variant.save(model, folder)
    elif plan.variant.converts_base_change:
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial / INITIAL_FOLDER))
    else:
        model.save_pretrained(folder)
    share(folder)
    full_layers.copy_record(initial, folder)
    if plan.variant.has_adapter:
        name_base(folder, plan.source)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's form of a model card, which nobody fills in


def name_base(folder: Path, source: ModelSource) -> None:
    """Name the base model in the configuration of a saved adapter as others find it."""
    base, path = published(source), folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def share(folder: Path) -> None:
    """Give weights the mode of the other files: safetensors makes files that only their owner can read."""
    (other,) = [*folder.glob("adapter_config.json"), *folder.glob("config.json")][:1]
    for weights in folder.glob("*.safetensors"):
        weights.chmod(other.stat().st_mode)


def load_saved(plan: Plan, folder: Path, *, base: PreTrainedModel | None) -> Any:
    """Return `base` with the saved adapter, as any PEFT user would load it; for `full`, the saved model.

    Raises:
        ProofError: the saved tensors are not those of the adapter or model, or cannot be loaded.
    """
    spec = plan.spec
    if plan.variant.trains_whole_model:
        source = replace(plan.source, name_or_path=str(folder), revision=None)
        try:
            return load_model(source, precision=spec.precision, quantization="none")
        except OptionError as error:  # the option `model` names the base model
            raise ProofError(f"the model in {folder} cannot be loaded: {error.allowed}") from error
    assert base is not None
    return load_adapter(base, folder)
