"""Tries out what an adapter can do on tiny models, one capability at a time.

Nothing is read from the declarations but how a method is built: a declared limit is tried like everything else.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from whichlora.config.plan import Plan
from whichlora.data.encoding import Encoder
from whichlora.errors import first_line
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules, trained_modules
from whichlora.models.answer_logits import answer_loss
from whichlora.models.checks import load_adapter
from whichlora.models.kernels.fast_paths import TrainingPaths
from whichlora.models.loading import copy_sharing_weights, load_model
from whichlora.testing.runs import move_adapter, small_plan
from whichlora.testing.tiny_model import save_tiny_model
from whichlora.testing.variant_case import MODULES
from whichlora.training import adapter
from whichlora.training.multi_adapter import Batch, backward_together
from whichlora.training.verification import prove_gradients
from whichlora.variants.capabilities import CAPABILITIES

FEW = {"hybrid-lora": {"full_share": 0.5}}
"""Own settings of methods that need other ones on a few small layers."""
_IDS = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(0))
_SAME = 1e-3
"""Relative difference of outputs that rounding in fp32 explains."""
_LOST = 0.1
"""Share of the adapter's effect by which outputs may differ after reloading: a changed base in bf16 is rounded."""


class _Lacks(Exception):
    """Says what a method cannot do."""


class Models:
    """The tiny models that the capabilities are tried on, saved in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain = save_tiny_model(folder / "plain", num_hidden_layers=2)
        self.biased = save_tiny_model(folder / "biased", num_hidden_layers=1, attention_bias=True, mlp_bias=True)
        self.mixture = save_tiny_model(
            folder / "mixture", num_hidden_layers=1, config="MixtralConfig", num_local_experts=2
        )


def probe(name: str, models: Models, capabilities: Iterable[str] = CAPABILITIES) -> dict[str, str]:
    """Return why the variant named `name` lacks each of these capabilities; empty texts for those that it has."""
    return {capability: _why_not(_PROBES[capability], name, models) for capability in capabilities}


def _why_not(attempt: Callable[[str, Models], None], name: str, models: Models) -> str:
    try:
        torch.manual_seed(0)
        attempt(name, models)
    except Exception as error:  # PEFT and torch raise many types
        text = first_line(error).removeprefix(f"{name} ").rstrip(".")
        return re.sub(r"\s+", " ", text) or type(error).__name__
    return ""


def _plan(model: Path, name: str, *, modules: str = MODULES, **spec: Any) -> Plan:
    plan = small_plan(model, FEW.get(name), variant=name, target_modules=modules, learning_rate="0.001")
    return replace(plan, spec=replace(plan.spec, **spec))


def _load(plan: Plan) -> Any:
    return load_model(plan.source, precision=plan.spec.precision, quantization=plan.spec.quantization)


def _attached(plan: Plan, base: Any = None) -> tuple[Any, Any]:
    torch.manual_seed(plan.spec.seed)
    model, evidence, _ = adapter.attach(base or _load(plan), plan, total_steps=5)
    return model.train(), evidence  # in eval mode a base in 4 bits would be packed, on a CPU, and stop gradients


def _move(model: Any) -> None:
    torch.manual_seed(1)
    move_adapter(model, by=0.02)


def _outputs(model: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=_IDS).logits
        return logits.float()


def _check_same(found: Tensor, expected: Tensor, what: str) -> None:
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= _SAME:
        raise _Lacks(f"{what} changes the outputs by {difference:.1g} of the largest")


def _try_low_precision(plan: Plan, models: Models) -> None:
    """Take three steps, check that each adapted layer gets a gradient, and reload the trained adapter."""
    model, evidence = _attached(plan)
    folder = Path(tempfile.mkdtemp(dir=models.folder))
    adapter.save_initial(model, plan, folder)
    make = plan.variant.optimizer
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = plan.spec.variant_options
    optimizer = torch.optim.AdamW(trainable, lr=0.01) if make is None else make(model, 0.01, 0.0, options)
    bf16 = plan.spec.precision == "bf16"
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext():
            logits = model(input_ids=_IDS).logits
        functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), _IDS[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        prove_gradients(evidence)
        optimizer.step()
    if evidence.without_gradient:
        raise _Lacks(f"no gradient reaches {next(iter(evidence.without_gradient))}")
    trained = _outputs(model)
    adapter.save(model, plan, folder / "adapter", initial=folder)
    base = _load(plan).train()
    effect = float((trained - _outputs(base)).norm())
    lost = float((_outputs(load_adapter(base, folder / "adapter").train()) - trained).norm())
    if not lost <= _LOST * effect:
        raise _Lacks(f"reloading loses {lost / effect:.0%} of the adapter's effect")


def _try_nf4(name: str, models: Models) -> None:
    _try_low_precision(_plan(models.plain, name, quantization="nf4", precision="fp32"), models)


def _try_bf16(name: str, models: Models) -> None:
    _try_low_precision(_plan(models.plain, name, precision="bf16"), models)


def _try_merging(name: str, models: Models) -> None:
    model, _ = _attached(_plan(models.plain, name))
    _move(model)
    unmerged = _outputs(model.eval())
    _check_same(_outputs(model.merge_and_unload()), unmerged, "merging")


def _try_layers(name: str, models: Models) -> None:
    plan = small_plan(
        models.plain, FEW.get(name), variant=name, target_modules="q_proj,v_proj,down_proj", layers="last:1"
    )
    model, _ = _attached(plan)
    folder = Path(tempfile.mkdtemp(dir=models.folder))
    adapter.save_initial(model, plan, folder)
    adapter.save(model, plan, folder / "adapter", initial=folder)
    for what, adapted in (("attached", model), ("reloaded", load_adapter(_load(plan), folder / "adapter"))):
        names = {key for key, _ in trained_modules(adapted)}
        if names != set(plan.adapted):
            raise _Lacks(f"adapts other layers than those chosen, {what}")


def _try_biases(name: str, models: Models) -> None:
    """Check that a bias is not trained and counts, by itself and when the adapter is merged."""
    plan = _plan(models.biased, name)
    base = _load(plan)
    with torch.no_grad():
        for module in base.modules():
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                module.bias.normal_()
    model, _ = _attached(plan, base)
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad and key.endswith("bias")]
    if trained:
        raise _Lacks(f"trains {trained[0]}")
    _move(model)
    outputs = _outputs(model.eval())
    layers = [module.get_base_layer() for _, module in adapter_modules(model)]
    before = [layer.bias.detach().clone() for layer in layers]
    for layer in layers:
        layer.bias.data.zero_()
    if _outputs(model).equal(outputs):
        raise _Lacks("leaves out the biases of its layers")
    for layer, bias in zip(layers, before, strict=True):
        layer.bias.data.copy_(bias)
    try:
        merged = model.merge_and_unload()
    except NotImplementedError:
        return
    _check_same(_outputs(merged), outputs, "merging beside a bias")


def _try_experts(name: str, models: Models) -> None:
    plan = _plan(models.mixture, name, modules="all-linear")
    model, _ = _attached(plan)
    experts = [key for key, parameter in _load(plan).named_parameters() if ".experts." in key and parameter.ndim == 3]
    adapted = [key for key, _ in trained_modules(model)]
    if missing := [key for key in experts if not any(key.startswith(layer) for layer in adapted)]:
        raise _Lacks(f"no adapter reaches {missing[0].partition('layers.0.')[2]}")


def _try_dropout(name: str, models: Models) -> None:
    model, _ = _attached(_plan(models.plain, name, dropout=0.5))
    _move(model)
    if _outputs(model).equal(_outputs(model)):
        raise _Lacks("has no dropout")
    if not _outputs(model.eval()).equal(_outputs(model)):
        raise _Lacks("drops values in inference too")


def _try_packing(name: str, models: Models) -> None:
    plans = [_plan(models.plain, name, seed=seed) for seed in (1, 2)]
    encoder, base, untouched = Encoder(plans[0].task, plans[0].tokenizer), _load(plans[0]), _load(plans[0])
    batches = []
    for start, plan in zip((0, 5), plans, strict=True):
        model, _ = _attached(plan, copy_sharing_weights(base))
        for key, module in adapter_modules(model):
            if not module.get_base_layer().weight.equal(untouched.get_submodule(key).weight):
                raise _Lacks("changes the base weights, which the runs of a pass share")
        _move(model)
        examples = [encoder.example(item) for item in plan.mixture.train[start : start + 3 + start // 5]]
        batches.append(
            Batch(
                model=model,
                layers=dict(adapter_modules(model)),
                examples=examples,
                count=sum(len(example.answer) for example in examples),
                paths=TrainingPaths((), {}, ()),
                autocast=nullcontext,
            )
        )
    expected = [_alone(batch) for batch in batches]
    backward_together(batches)
    for batch, gradients in zip(batches, expected, strict=True):
        for key, parameter in batch.model.named_parameters():
            if key in gradients:
                difference = float((parameter.grad - gradients[key]).norm())
                if not difference <= _SAME * float(gradients[key].norm()):
                    raise _Lacks("has other gradients in a joint pass than alone")


def _alone(batch: Batch) -> dict[str, Tensor]:
    with packing.attention(batch.model):
        loss, _ = answer_loss(batch.model, packing.pack(batch.examples, share=True))
        (loss / batch.count).backward()  # type: ignore[no-untyped-call]
    gradients = {key: p.grad.clone() for key, p in batch.model.named_parameters() if p.grad is not None}
    batch.model.zero_grad()
    return gradients


_PROBES: Mapping[str, Callable[[str, Models], None]] = {
    "nf4": _try_nf4,
    "bf16": _try_bf16,
    "merge": _try_merging,
    "layers": _try_layers,
    "biases": _try_biases,
    "experts": _try_experts,
    "dropout": _try_dropout,
    "pack": _try_packing,
}
