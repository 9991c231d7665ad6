"""Conformance checks for variants: declaration, parameter counts, choice of layers, merging, NF4.

`check_variant` runs all checks, including those in `variant_runs`. A check raises `AssertionError`, or the `ProofError`
or `OptionError` of a run that it carries out. Models are folders written by `save_tiny_model`. `options` override the
options of the runs: a variant that diverges at their `learning_rate` needs a lower one.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whichlora.config.hyperparameters import adapted_shapes, arm_hyperparameters, resolve_modules
from whichlora.models.adapter_layers import trained_modules
from whichlora.models.loading import load_model, shape_of
from whichlora.testing.runs import move_adapter, small_plan
from whichlora.testing.tiny_model import save_tiny_model
from whichlora.testing.variant_runs import check_resuming, check_training, reload_with_peft
from whichlora.training import adapter
from whichlora.training.verification import prove_gradients
from whichlora.variants import AdapterSettings, get_variant, name_conflicts

MODULES = "q_proj,down_proj"
"""Modules adapted in the checks of layers: one in attention and one in the feed-forward block."""
TASKS = ("atlas-nli", "atlas-qa")


def check_variant(
    name: str, folder: str | Path, *, few_settings: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Run all checks that apply to the variant named `name`, in new subfolders of `folder`.

    `few_settings` are the variant's own settings where four layers or more have an adapter, if its defaults need more.
    This takes about a minute on two CPU cores.
    """
    variant = get_variant(name)
    ignored = [text for text in name_conflicts() if f"a variant {name}," in text]
    assert not ignored, ignored[0]
    work = Path(folder).absolute()
    work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))  # finished runs of an earlier call would be reused
    model = save_tiny_model(work / "tiny")
    check_declaration(name)
    if variant.adapts_layers:
        check_parameter_count(name, _config(model), device="cpu")
    if variant.has_adapter:
        deep = save_tiny_model(work / "deep", num_hidden_layers=32, hidden_size=16, intermediate_size=16)
        check_chosen_layers(name, model, work / "chosen", few_settings)
        check_layer_forms_and_merging(name, deep, few_settings)
        if variant.quantizable:
            check_nf4(name, model)
    for task in TASKS:
        check_training(name, model, work / task, task=task, **options)
    if variant.trains:
        check_resuming(name, model, work / "resuming", **options)


def check_declaration(name: str) -> None:
    """Check a variant's name and title, and its values and sources in both arms."""
    variant = get_variant(name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name), f"{name!r} must be lower-case words joined by hyphens"
    assert variant.title, f"{name} has no title"
    if variant.trains:
        for arm in ("recommended", "matched"):
            check_arm(name, arm)


def check_arm(name: str, arm: str) -> None:
    """Check that an arm of a variant has a source, and a rank and an alpha if the method has them."""
    variant = get_variant(name)
    values = arm_hyperparameters(variant, arm, learning_rate=0.01)
    assert values is not None, f"{name} trains, but has no recommended values"
    assert values.source, f"the arm {arm} of {name} names no source"
    assert variant.paper, f"{name} names no paper"
    if not variant.has_adapter:
        return
    assert (values.rank is not None) == variant.has_rank, f"the arms of {name} disagree on whether it has a rank"
    assert (values.alpha is not None) == variant.has_alpha, f"the arms of {name} disagree on whether it has an alpha"
    assert variant.recommended is not None
    rate, rates = variant.recommended.learning_rate, variant.space.learning_rate
    assert min(rates) <= rate <= max(rates), f"{name}: the recommended learning rate is outside its search space"


def check_parameter_count(
    name: str, config: Any, *, modules: str = "all-linear", rank: int | None = None, device: str = "meta"
) -> None:
    """Check that `expected_parameters` gives the number of trainable parameters that PEFT builds.

    No layer is trained in full.

    Args:
        config: the model's transformers configuration.
        modules: the option `target_modules`.
        rank: default: the rank of the arm `matched`, or the largest rank that the layers allow.
        device: "meta" allocates no weights, but does not work for variants whose initialisation reads them.
    """
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    variant = get_variant(name)
    assert variant.build is not None, f"{name} has no build"
    assert variant.expected_parameters is not None, f"{name} has no expected_parameters"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(model)
    shapes = adapted_shapes(shape, resolve_modules(modules, shape, model=device), tuple(range(shape.n_layers)))
    if rank is None:
        rank = min(variant.matched_rank or 0, variant.rank_limit(shapes)) if variant.has_rank else 0
    settings = AdapterSettings(
        rank=rank,
        alpha=variant.matched_alpha if variant.has_alpha else None,
        dropout=0.0,
        target_modules=tuple(shapes),
        options=variant.options,
        seed=0,
        total_steps=100,
        shapes=shapes,
    )
    with torch.device(device):
        adapted = get_peft_model(model, variant.build(settings))
        if variant.after_attach is not None:
            variant.after_attach(adapted)
    built = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    formula = variant.expected_parameters(shapes, rank, variant.options)
    assert formula == built, f"{name} at rank {rank}: the formula gives {formula:,} parameters, PEFT builds {built:,}"


def check_chosen_layers(name: str, model: str | Path, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check that only the chosen layers are adapted, after attaching and after reloading with plain PEFT."""
    plan = small_plan(model, settings, variant=name, layers="first:1,2", target_modules=MODULES)
    chosen = {f"model.layers.{n}.{module}" for n in (0, 2) for module in ("self_attn.q_proj", "mlp.down_proj")}
    assert set(plan.adapted) == chosen
    base = load_model(plan.source, precision="fp32", quantization="none")
    before = {key: parameter.clone() for key, parameter in base.named_parameters()}
    adapted, _, _ = adapter.attach(base, plan, total_steps=5)
    _assert_adapted(adapted, chosen, f"{name}, attached to the chosen layers")
    for key, parameter in before.items():
        if key.removesuffix(".weight") not in chosen:
            assert parameter.equal(base.get_parameter(key)), f"{name} changed {key}, which was not chosen"

    adapter.save_initial(adapted, plan, folder)
    adapter.save(adapted, plan, folder / "adapter", initial=folder)
    _assert_adapted(reload_with_peft(name, model, folder / "adapter"), chosen, f"{name}, reloaded by plain PEFT")


def check_layer_forms_and_merging(name: str, deep_model: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Check that each form of the option `layers` selects the right blocks, and that merging preserves the outputs.

    Merging a variant that is not `mergeable` must fail.

    `deep_model` must have 32 decoder blocks.
    """
    forms = {
        "first:10,last:2": [*range(10), 30, 31],
        "last:2": [30, 31],
        "22-27,30-31": [*range(22, 28), 30, 31],
    }
    for text, blocks in forms.items():
        plan = small_plan(deep_model, settings, variant=name, layers=text, target_modules=MODULES)
        torch.manual_seed(0)
        base = load_model(plan.source, precision="fp32", quantization="none")
        model, _, _ = adapter.attach(base, plan, total_steps=5)
        expected = [f"model.layers.{n}.{module}" for n in blocks for module in ("self_attn.q_proj", "mlp.down_proj")]
        adapted = [key for key, _ in trained_modules(model)]
        assert adapted == expected, f"layers={text} adapts {', '.join(adapted)}"
    move_adapter(model, by=0.05)
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7, 8]])
        unmerged = model.eval()(input_ids=ids).logits
        if not get_variant(name).mergeable:
            _assert_not_merged(name, model)
            return
        merged = model.merge_and_unload()(input_ids=ids).logits
        torch.testing.assert_close(
            merged, unmerged, atol=1e-3, rtol=1e-3, msg=lambda text: f"merging {name} changes its outputs: {text}"
        )


def _assert_not_merged(name: str, model: Any) -> None:
    try:
        model.merge_and_unload()
    except NotImplementedError:
        return
    raise AssertionError(f"PEFT merges {name}, which is declared as not mergeable")


def check_nf4(name: str, model: str | Path) -> None:
    """Check that every adapted layer of an NF4 base gets a gradient.

    It works on a CPU too, before any scoring, which would make bitsandbytes pack the weights and stop the gradients.
    """
    plan = small_plan(model, variant=name, quantization="nf4")
    base = load_model(plan.source, precision="fp32", quantization="nf4")
    adapted, evidence, _ = adapter.attach(base, plan, total_steps=5)
    adapted.train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.01)
    ids = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        logits = adapted(input_ids=ids).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        prove_gradients(evidence)
        optimizer.step()
    without_gradient = list(evidence.without_gradient)
    assert not without_gradient, f"on an NF4 base with {name} no gradient reached {', '.join(without_gradient)}"


def _assert_adapted(model: Any, chosen: set[str], what: str) -> None:
    adapted = {key for key, _ in trained_modules(model)}
    assert adapted == chosen, f"{what}: adapts also {sorted(adapted - chosen)}, but not {sorted(chosen - adapted)}"


def _config(model: str | Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model)
