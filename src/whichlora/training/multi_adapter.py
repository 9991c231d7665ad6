"""Trains several runs with one joint forward and backward pass over their batches, as in mLoRA and S-LoRA.

The runs share a frozen base model. Each base layer processes the tokens of all runs in one matrix product; each run's
adapter then processes that run's tokens. This is faster on a GPU, where small batches are limited by kernel launches.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

from whichlora.config.cli import MAX_PACK
from whichlora.config.plan import Plan
from whichlora.data.batching import IGNORED, to_device
from whichlora.data.encoding import Encoded
from whichlora.errors import OptionError, in_a_line, parse_integer
from whichlora.models import packing
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.answer_logits import answer_logits
from whichlora.models.kernels.fast_paths import TrainingPaths
from whichlora.models.kernels.patching import patched_forward
from whichlora.models.memory import runs_without_oom
from whichlora.parallel import distributed
from whichlora.training.micro_batches import MICRO_BATCH
from whichlora.training.objectives import objective_of
from whichlora.variants import provider


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The batch that one run contributes to a joint pass.

    Attributes:
        model: the run's adapter on a base whose weights all runs of the pass share.
        layers: the model's adapted layers, by name.
        examples: encoded prompts and answers.
        count: divisor of the summed loss.
        paths: the fast paths of the adapted layers.
        autocast: returns the autocast context of the forward pass.
    """

    model: Any
    layers: Mapping[str, Any]
    examples: Sequence[Encoded]
    count: float
    paths: TrainingPaths
    autocast: Callable[[], AbstractContextManager[Any]]


def why_not_packable(plan: Plan) -> str | None:
    """Return why a run cannot take part in a joint pass; None if it can."""
    spec, variant = plan.spec, plan.variant
    if not variant.trains:
        return None  # without training steps there is no pass to take part in
    if not objective_of(plan).packable:
        return f"task {spec.task} is not trained with the cross-entropy of answers"
    if not variant.has_adapter or variant.changes_base or variant.fully_trained is not None:
        return f"{variant.name} changes the base weights, which all runs of a pass share"
    if provider(variant.name) is not None:
        return f"{variant.name} is not in the catalogue, and only the catalogue's variants are tested in shared passes"
    if variant.changes_input:
        return f"{variant.name} changes the inputs of the base layers, which all runs of a pass share"
    if variant.reads_batch:
        return f"{variant.name} reads all tokens of its batch, which a joint pass arranges otherwise"
    if spec.quantization != "none":
        return f"quantization {spec.quantization} uses its own matrix products"
    if spec.dropout:
        return f"dropout {spec.dropout:g} needs a random mask for each run"
    if (spec.batch_size or 0) > MICRO_BATCH:
        return f"batches of {spec.batch_size} are split into micro-batches of at most {MICRO_BATCH} items"
    return None


def parse_pack(text: str, plans: Iterable[Plan]) -> int:
    """Parse the option `pack`, the number of runs to train at once, and check that the plans allow it.

    Raises:
        OptionError: It is not a number from 1 to `MAX_PACK`, or one of the plans cannot take part in a joint pass.
    """
    pack = parse_integer("pack", text, 1, MAX_PACK)
    if pack > 1:
        distributed.check_one_process("pack", pack, "must be 1")
    bases = set()
    for plan in plans:
        if pack > 1 and (reason := why_not_packable(plan)):
            raise OptionError("pack", pack, f"must be 1 with {plan.name}: {reason}")
        bases.add((plan.source.digest, plan.spec.precision))
    if pack > 1 and len(bases) > 1:
        raise OptionError("pack", pack, "must be 1 with several models: all runs of a pass share one base model")
    return pack


def backward_together(batches: Sequence[Batch]) -> list[Tensor]:
    """Compute the gradients of all batches in one pass; each model gets those that it would get alone.

    A batch's gradients are those of its summed loss divided by `count`.

    Returns:
        The summed loss of each batch.
    """
    packs = [packing.pack(batch.examples, share=True) for batch in batches]
    lengths = [pack["input_ids"].shape[1] for pack in packs]
    answers = [int((pack["labels"] != IGNORED).sum()) for pack in packs]
    lead = batches[0].model
    weights = {id(unwrap_peft(batch.model).get_input_embeddings().weight) for batch in batches}
    assert len(weights) == 1, "the models of a pass have several base models"
    with ExitStack() as stack:
        stack.enter_context(packing.attention(lead))
        for batch in batches:
            stack.enter_context(batch.paths.enabled_in_joint_pass())
        stack.enter_context(_shared_base(lead, [batch.layers for batch in batches], lengths))
        with batches[0].autocast():
            logits, targets = answer_logits(lead, to_device(packing.join(packs), lead.device), every_token=True)
            losses = [
                nn.functional.cross_entropy(batch_logits, batch_targets, reduction="sum")
                for batch_logits, batch_targets in zip(
                    torch.split(logits, answers), torch.split(targets, answers), strict=True
                )
            ]
        torch.autograd.backward([loss / batch.count for loss, batch in zip(losses, batches, strict=True)])
    return [loss.detach() for loss in losses]


def _shared_base(
    lead: Any, layers: Sequence[Mapping[str, Any]], lengths: Sequence[int]
) -> AbstractContextManager[None]:
    """Return a context in which the model `lead` processes the tokens of several runs, each with its own adapter.

    Args:
        layers: the adapted layers of each run, by name.
        lengths: the number of tokens of each run, in the order of `layers`; the input has shape (1, sum of lengths).
    """
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    names = {name for run_layers in layers for name in run_layers}
    hosts = [
        (layers[0].get(name) or unwrap_peft(lead).get_submodule(name), [run_layers.get(name) for run_layers in layers])
        for name in names
    ]
    return patched_forward(
        (host, partial(_forward_with_adapters, base=getattr(host, "base_layer", host), adapters=adapters, spans=spans))
        for host, adapters in hosts
    )


def _forward_with_adapters(x: Tensor, *, base: Any, adapters: Sequence[Any], spans: Sequence[slice]) -> Tensor:
    """Return the base layer's output for all tokens, (1, tokens, features), with each run's adapter on its own span.

    For a run without an adapter on this layer (None), the span has the base layer's output.
    """
    whole = type(base).forward(base, x)
    parts = []
    for layer, span in zip(adapters, spans, strict=True):
        part = whole[:, span]
        if layer is not None:
            if (
                type(layer) is not Linear or layer.lora_variant
            ):  # others may add in place, to a tensor that another gradient needs
                part = part.clone()
            with patched_forward([(layer.base_layer, lambda _, part=part: part)]):
                part = type(layer).forward(layer, x[:, span])
        parts.append(part)
    return torch.cat(parts, dim=1)


def try_together(batches: list[Batch]) -> list[Tensor] | None:
    """Compute the gradients of all batches in one pass; if it fails, leave no gradients.

    Returns:
        The summed loss of each batch; an empty list if the pass raised an error or a loss or gradient is not finite;
        None if memory ran out.
    """
    losses: list[Tensor] = []

    def joint_pass() -> None:
        losses.extend(backward_together(batches))

    fitted = True
    try:
        fitted = runs_without_oom(joint_pass)
    except Exception as error:  # each run then takes its step alone, and the one at fault raises the error again
        reason = in_a_line(f"{type(error).__name__}: {error}")
        print(f"A pass of {len(batches)} runs failed ({reason}). Each takes this step alone.", file=sys.stderr)
    if losses and not _all_finite(losses, batches):
        # Padding may have carried one run's NaN into others. Alone, the run at fault fails and the others train on.
        reason = "a loss or gradient is not finite"
        print(f"A pass of {len(batches)} runs failed ({reason}). Each takes this step alone.", file=sys.stderr)
        losses.clear()
    if not losses:
        for batch in batches:
            for parameter in batch.model.parameters():
                parameter.grad = None
    return losses if fitted else None


def _all_finite(losses: Sequence[Tensor], batches: Sequence[Batch]) -> bool:
    """Return whether all losses and all gradient norms are finite; on a GPU, wait for the device only once."""
    gradients = ([p.grad for p in batch.model.parameters() if p.grad is not None] for batch in batches)
    norms = [nn.utils.get_total_norm(run_gradients) for run_gradients in gradients]
    return bool(torch.stack([value.float() for value in (*losses, *norms)]).isfinite().all())
