"""The language probe's decoding beside the usual way: detection of the languages is in neither.

The usual way asks transformers for all hidden states of one item after the other and takes the arg-max of a softmax of
every layer's logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.harness import (
    Bench,
    Block,
    Equality,
    Result,
    Row,
    agreement,
    alternate,
    timed_turn,
)
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.models.loading import load_model, load_tokenizer, locate, read_shape
from whichlora.probing.language.logit_lens import Lens
from whichlora.probing.options import LanguageChoices

Tokens = list[np.ndarray[Any, Any]]
LOOP = "all hidden states and logits, item after item"
ROWS = (
    Row(name="probe", work="language probe, fp32", against=LOOP, goal=3.5),
    Row(name="probe-bf16", work="language probe, LM head in bf16", against=f"{LOOP}, fp32", goal=3.5, precision="bf16"),
)
WARM = 2
"""Items before the first turn."""
SAME = {"fp32": 1.0, "bf16": 0.95}
"""Least share of equal tokens; the probe itself refuses bf16 below the latter."""


@torch.inference_mode()
def decode_all_layers(model: Any, sequences: Sequence[Sequence[int]]) -> Tokens:
    """Return for each sequence (layers, positions, 1), by the logits of every layer."""
    found = []
    for sequence in sequences:
        states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states[1:]
        normed = [*(model.model.norm(layer[0]) for layer in states[:-1]), states[-1][0]]
        tokens = [torch.softmax(model.lm_head(layer), -1).argmax(-1).numpy() for layer in normed]
        found.append(np.stack(tokens)[..., None])
    return found


def measure(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Decode the same items, in Swahili, in each way."""
    from transformers import AutoModelForCausalLM

    source = locate(bench.model)
    plain = AutoModelForCausalLM.from_pretrained(source.place, revision=source.revision).cpu().eval()
    model: Any = load_model(source, precision="fp32", quantization="none").cpu().eval()
    task = get_task("atlas-nli")
    encoder = Encoder(task, load_tokenizer(source))
    # The probe takes all items in this order, 32 at a time; those in the middle are neither most nor least alike.
    items = sorted(task.load("sw", "test"), key=task.prompt)
    sequences = [encoder.prompt(item) for item in items[len(items) // 2 :][: bench.probed]]
    positions = [range(len(sequence)) for sequence in sequences]
    blocks = read_shape(source).blocks
    rows = {row.precision: row for row in ROWS if row.name in wanted}
    found: dict[str, Tokens] = {}

    def way(name: str, tokens: Callable[[int], Tokens]) -> Callable[[], dict[str, float]]:
        tokens(WARM)
        return timed_turn(lambda: found.update({name: tokens(len(sequences))}))

    ways = {"theirs": way("theirs", lambda count: decode_all_layers(plain, sequences[:count]))}
    for arithmetic in rows:
        lens = Lens(model, blocks, LanguageChoices(arithmetic=arithmetic))
        ways[arithmetic] = way(arithmetic, lambda count, lens=lens: lens.tokens(sequences[:count], positions[:count]))  # type: ignore[misc]
    taken = alternate("probe", ways, bench.pairs)
    flat = {name: [int(t) for item in tokens for t in item.ravel()] for name, tokens in found.items()}

    def equal(arithmetic: str) -> Equality:
        return agreement(flat[arithmetic], flat["theirs"], "tokens", limit=SAME[arithmetic])

    return [
        Result(
            row=row,
            ours=taken[arithmetic],
            theirs=taken["theirs"],
            scale=len(sequences),
            per="item",
            equal=equal(arithmetic),
        )
        for arithmetic, row in rows.items()
    ]


BLOCKS = [Block(rows=ROWS, minutes=2.5, measure=measure)]
