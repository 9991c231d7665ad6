"""Compares the language probe's decoding with the usual way; language detection is excluded on both sides.

The usual way asks transformers for all hidden states, item by item, and takes the argmax of a softmax of every layer's
logits.
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
    timed,
)
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.models.loading import load_model, load_tokenizer, locate, read_shape
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.language.logit_lens import LogitLens

Tokens = list[np.ndarray[Any, Any]]
LOOP = "all hidden states and logits, item after item"
ROWS = (
    Row(name="probe", work="language probe, fp32", against=LOOP, goal=3.5),
    Row(name="probe-bf16", work="language probe, LM head in bf16", against=f"{LOOP}, fp32", goal=3.5, precision="bf16"),
)
WARM_UP_ITEMS = 2
MIN_AGREEMENT = {"fp32": 1.0, "bf16": 0.95}
"""Lowest share of equal tokens; below the bf16 value the probe itself refuses bf16."""


@torch.inference_mode()
def decode_all_layers(model: Any, sequences: Sequence[Sequence[int]]) -> Tokens:
    """Return the most probable token of every layer: for each sequence an array (layers, positions, 1)."""
    decoded = []
    for sequence in sequences:
        states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states[1:]
        normed = [*(model.model.norm(layer[0]) for layer in states[:-1]), states[-1][0]]
        tokens = [torch.softmax(model.lm_head(layer), -1).argmax(-1).numpy() for layer in normed]
        decoded.append(np.stack(tokens)[..., None])
    return decoded


def measure(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Decode the same Swahili items with the usual loop and with the probe, in each precision."""
    from transformers import AutoModelForCausalLM

    source = locate(bench.model)
    plain = AutoModelForCausalLM.from_pretrained(source.name_or_path, revision=source.revision).cpu().eval()
    model: Any = load_model(source, precision="fp32", quantization="none").cpu().eval()
    task = get_task("atlas-nli")
    encoder = Encoder(task, load_tokenizer(source))
    # The probe decodes items in this order, 32 at a time; the middle ones are neither the most nor the least similar.
    items = sorted(task.load("sw", "test"), key=task.prompt)
    sequences = [encoder.prompt(item) for item in items[len(items) // 2 :][: bench.probed]]
    positions = [range(len(sequence)) for sequence in sequences]
    blocks = read_shape(source).blocks
    rows = {row.precision: row for row in ROWS if row.name in wanted}
    decoded: dict[str, Tokens] = {}

    def side(name: str, decode: Callable[[int], Tokens]) -> Callable[[], dict[str, float]]:
        decode(WARM_UP_ITEMS)
        return timed(lambda: decoded.update({name: decode(len(sequences))}))

    sides = {"theirs": side("theirs", lambda count: decode_all_layers(plain, sequences[:count]))}
    for arithmetic in rows:
        lens = LogitLens(model, blocks, LanguageChoices(arithmetic=arithmetic))
        sides[arithmetic] = side(arithmetic, lambda count, lens=lens: lens.decode(sequences[:count], positions[:count]))  # type: ignore[misc]
    measured = alternate("probe", sides, bench.pairs)
    flat = {name: [int(t) for item in tokens for t in item.ravel()] for name, tokens in decoded.items()}

    def equal(arithmetic: str) -> Equality:
        return agreement(flat[arithmetic], flat["theirs"], "tokens", limit=MIN_AGREEMENT[arithmetic])

    return [
        Result(
            row=row,
            ours=measured[arithmetic],
            theirs=measured["theirs"],
            scale=len(sequences),
            per="item",
            equal=equal(arithmetic),
        )
        for arithmetic, row in rows.items()
    ]


BLOCKS = [Block(rows=ROWS, minutes=2.5, measure=measure)]
