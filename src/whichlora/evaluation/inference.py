"""Runs inference over many texts in batches that fit into memory, packed where possible, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from whichlora import termination
from whichlora.data.batching import by_length, collate, in_order, sorted_by_ids, to_device
from whichlora.data.encoding import Encoded, Encoder
from whichlora.models import packing
from whichlora.models.memory import Divide, in_batches
from whichlora.models.rope_switch import sides, switch_length

BATCH_TOKENS = 8192
"""Token budget of a batch: padding included; for packed batches unshared tokens only (fewer on a CPU), 8x in total."""
BATCH_ITEMS, PACKED_ITEMS = 32, 128
CACHED_TOKENS = 1024
"""Budget of unshared tokens of a packed batch on a CPU, whose activations then stay in the processor's caches."""


def run_examples(
    model: Any,
    encoder: Encoder,
    examples: list[Encoded],
    work: Callable[[list[int], dict[str, Any]], None],
    *,
    name: str,
    unit: str,
    packed_items: int | None = None,
) -> None:
    """Call `work` with the positions and tensors of each batch of examples, packed where the model allows it.

    Examples are sorted before packing, so that those with a common prefix share a batch. A packed batch has at most
    `packed_items` examples, or `BATCH_ITEMS` if None. Examples on different sides of a LongRoPE switch never share one.
    """
    parts = sides([len(example) for example in examples], switch_length(model.config))
    if len(parts) > 1:
        for part in parts:

            def work_on_part(batch: list[int], tensors: dict[str, Any], part: list[int] = part) -> None:
                work([part[k] for k in batch], tensors)

            chosen = [examples[i] for i in part]
            run_examples(model, encoder, chosen, work_on_part, name=name, unit=unit, packed_items=packed_items)
        return
    if not packing.can_pack(model):

        def padded(batch: list[int]) -> None:
            work(batch, to_device(collate([examples[i] for i in batch], encoder.tokenizer.pad_token_id), model.device))

        run_batched([len(e) for e in examples], padded, name=name, unit=unit)
        return
    order, lengths = sorted_by_ids(examples)
    max_items = min(packed_items or BATCH_ITEMS, max(1, 8 * BATCH_TOKENS // max(map(len, examples), default=1)))

    def packed(positions: list[int]) -> None:
        batch = [order[k] for k in positions]
        work(batch, to_device(packing.pack([examples[i] for i in batch]), model.device))

    tokens = CACHED_TOKENS if model.device.type == "cpu" else BATCH_TOKENS
    with packing.attention(model):
        run_batched(lengths, packed, name=name, unit=unit, divide=in_order, max_tokens=tokens, max_items=max_items)


def run_batched(
    lengths: list[int],
    work: Callable[[list[int]], None],
    *,
    name: str,
    unit: str,
    divide: Divide = by_length,
    max_tokens: int = BATCH_TOKENS,
    max_items: int | None = None,
) -> None:
    """Call `work` with batches of at most `max_items` positions (`BATCH_ITEMS` if None), with a progress bar.

    `lengths` are the tokens of each item; the other arguments are those of `in_batches`.
    """
    with tqdm(total=len(lengths), desc=name, unit=unit, leave=False) as bar:

        def work_and_count(batch: list[int]) -> None:
            termination.check()  # in lockstep this is not the main thread, which a signal interrupts
            work(batch)
            bar.update(len(batch))

        in_batches(lengths, work_and_count, divide=divide, max_tokens=max_tokens, max_items=max_items or BATCH_ITEMS)
