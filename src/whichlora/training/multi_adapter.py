"""One pass for the batches of several runs: the frozen base's products are made once, each run adds its own adapter.

A linear layer that is adapted in one of the runs multiplies the tokens of all of them in one product; then the adapter
of each run takes its own tokens. On a GPU small batches leave the base model waiting for launches, which are shared.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whichlora.config.cli import MAX_PACK
from whichlora.data.batching import IGNORED, to_device
from whichlora.data.encoding import Encoded
from whichlora.errors import OptionError, parse_whole
from whichlora.models import packing
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.answer_logits import answer_logits
from whichlora.models.kernels.bf16 import skip_input_cast
from whichlora.models.kernels.patching import patched_forward
from whichlora.parallel import distributed
from whichlora.training.micro_batches import MICRO_BATCH
from whichlora.training.objectives import objective_of
from whichlora.variants import provider

if TYPE_CHECKING:
    from whichlora.config.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one run learns from in a pass.

    Attributes:
        model: its own adapter on a base whose weights all runs of the pass share.
        layers: the model's adapted layers, by name.
        examples: answers to learn.
        count: what the sum of losses is divided by.
        shares: whether what prompts begin with is read once.
        uncast: its layers whose inputs stay as they come, see `rounding`.
        arithmetic: opens the context of the forward pass, such as autocast.
    """

    model: Any
    layers: Mapping[str, Any]
    examples: Sequence[Encoded]
    count: float
    shares: bool
    uncast: Sequence[Any]
    arithmetic: Callable[[], AbstractContextManager[Any]]


def why_not_packable(plan: Plan) -> str | None:
    """Return why a run cannot take part in a pass with others; None if it can."""
    spec, variant = plan.spec, plan.variant
    if not variant.trains:
        return None  # it is scored alone
    if not objective_of(plan).packable:
        return f"the task {spec.task} is learnt by another loss than answers"
    if not variant.has_adapter or variant.changes_base or variant.fully_trained:
        return f"{variant.name} changes the base weights, which all runs of a pass share"
    if provider(variant.name) is not None:
        return f"{variant.name} is not in the catalogue, and only the catalogue's variants are tested in shared passes"
    if variant.changes_input:
        return f"{variant.name} changes what the base layers are given, which all runs of a pass share"
    if spec.quantization != "none":
        return f"quantization {spec.quantization} has products of its own"
    if spec.dropout:
        return f"dropout {spec.dropout:g} is drawn for each run"
    if (spec.batch_size or 0) > MICRO_BATCH:
        return f"batches of {spec.batch_size} are read in parts; at most {MICRO_BATCH} items go through at once"
    return None


def parse_pack(text: str, plans: Iterable[Plan]) -> int:
    """Return how many runs are to train at once.

    Raises:
        OptionError: it is no number, or one of the plans cannot take part.
    """
    pack = parse_whole("pack", text, 1, MAX_PACK)
    if pack > 1 and distributed.world_size() > 1:
        raise OptionError("pack", pack, "must be 1 under accelerate launch, whose processes train one run together")
    bases = set()
    for plan in plans:
        if pack > 1 and (why := why_not_packable(plan)):
            raise OptionError("pack", pack, f"must be 1 with {plan.name}: {why}")
        bases.add((plan.source.digest, plan.spec.precision))
    if pack > 1 and len(bases) > 1:
        raise OptionError("pack", pack, "must be 1 with several models: all runs of a pass share one")
    return pack


def backward_together(batches: Sequence[Batch]) -> list[Tensor]:
    """Leave in every model the gradients of its loss divided by its count, as it would have them alone.

    Returns:
        the sum of the losses of each.
    """
    packs = [packing.pack(batch.examples, share=batch.shares) for batch in batches]
    lengths = [pack["input_ids"].shape[1] for pack in packs]
    answers = [int((pack["labels"] != IGNORED).sum()) for pack in packs]
    lead = batches[0].model
    weights = {id(unwrap_peft(batch.model).get_input_embeddings().weight) for batch in batches}
    assert len(weights) == 1, "the models of a pass have several bases"
    with ExitStack() as stack:
        stack.enter_context(packing.attention(lead))
        for batch in batches:
            stack.enter_context(skip_input_cast(batch.uncast))
        stack.enter_context(_behind_one_base(lead, [batch.layers for batch in batches], lengths))
        with batches[0].arithmetic():
            logits, targets = answer_logits(lead, to_device(packing.join(packs), lead.device))
            losses = [
                nn.functional.cross_entropy(own, right, reduction="sum")
                for own, right in zip(torch.split(logits, answers), torch.split(targets, answers), strict=True)
            ]
        torch.autograd.backward([loss / batch.count for loss, batch in zip(losses, batches, strict=True)])
    return [loss.detach() for loss in losses]


def _behind_one_base(
    lead: Any, layers: Sequence[Mapping[str, Any]], lengths: Sequence[int]
) -> AbstractContextManager[None]:
    """Have a model read a row of (1, tokens) in which each set of layers has so many tokens, one after the other."""
    ends = torch.tensor(lengths).cumsum(0).tolist()
    spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    names = {name for own in layers for name in own}
    hosts = [
        (layers[0].get(name) or unwrap_peft(lead).get_submodule(name), [own.get(name) for own in layers])
        for name in names
    ]
    return patched_forward(
        (host, partial(_added, base=getattr(host, "base_layer", host), own=own, spans=spans)) for host, own in hosts
    )


def _added(x: Tensor, *, base: Any, own: Sequence[Any], spans: Sequence[slice]) -> Tensor:
    """Return what the base layer makes of all tokens, (1, tokens, features), with what each adapter adds to its own."""
    from peft.tuners.lora import Linear

    whole = type(base).forward(base, x)
    parts = []
    for layer, span in zip(own, spans, strict=True):
        part = whole[:, span]
        if layer is not None:
            if type(layer) is not Linear:  # some add in place, to what another may need for its gradient
                part = part.clone()
            with patched_forward([(layer.base_layer, lambda _, part=part: part)]):
                part = type(layer).forward(layer, x[:, span])
        parts.append(part)
    return torch.cat(parts, dim=1)


def try_together(batches: list[Batch]) -> list[Tensor] | None:
    """Leave the gradients of all batches; none of them where one fails, or, for want of memory, returning None."""
    from whichlora.models.memory import fits
    from whichlora.training import multi_adapter

    losses: list[Tensor] = []

    def take() -> None:
        losses.extend(multi_adapter.backward_together(batches))

    fitted = True
    try:
        fitted = fits(take)
    except Exception as error:  # each then takes its step alone, and the one whose fault it is meets it again
        print(f"A pass of {len(batches)} runs failed ({type(error).__name__}: {error}).", file=sys.stderr)
    if not losses:
        for batch in batches:
            for parameter in batch.model.parameters():
                parameter.grad = None
    return losses if fitted else None
