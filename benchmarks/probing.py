"""What the language probe's decoding costs beside the usual way: `python -m benchmarks.probing [--items 16]`.

The usual way asks transformers for all hidden states of one item after the other and takes the arg-max of a softmax of
every layer's logits. Both are done in turn, in one process; detection is in neither. Seconds are of the CPU.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from whichlora import models
from whichlora.encoding import Encoder
from whichlora.probing.decoding import Lens
from whichlora.probing.options import LanguageChoices
from whichlora.tasks import get_task

Tokens = list[np.ndarray[Any, Any]]


@torch.inference_mode()
def usual(model: Any, sequences: Sequence[Sequence[int]]) -> Tokens:
    """Return for each sequence (layers, positions, 1), by the logits of every layer."""
    found = []
    for sequence in sequences:
        states = model(torch.tensor([sequence]), output_hidden_states=True).hidden_states[1:]
        normed = [*(model.model.norm(layer[0]) for layer in states[:-1]), states[-1][0]]
        tokens = [torch.softmax(model.lm_head(layer), -1).argmax(-1).numpy() for layer in normed]
        found.append(np.stack(tokens)[..., None])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print seconds an item, their ratio, and the share of equal tokens."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--language", default="sw")
    given = parser.parse_args(arguments)

    source = models.locate("smollm2-135m")
    model: Any = models.load_model(source, precision="fp32", quantization="none").cpu().eval()
    task = get_task("atlas-nli")
    encoder = Encoder(task, models.load_tokenizer(source))
    sequences = [encoder.prompt(item) for item in task.load(given.language, "test")[: given.items]]
    positions = [range(len(sequence)) for sequence in sequences]
    blocks = models.shape(source).blocks
    lenses = {a: Lens(model, blocks, LanguageChoices(arithmetic=a)) for a in ("fp32", "bf16")}
    ways: dict[str, Callable[[], Tokens]] = {"usual": lambda: usual(model, sequences)}
    ways |= {name: lambda lens=lens: lens.tokens(sequences, positions) for name, lens in lenses.items()}  # type: ignore[misc]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens: dict[str, np.ndarray[Any, Any]] = {}
    for _ in range(given.repeats):
        for name, way in ways.items():
            began = time.process_time()
            found = way()
            seconds[name].append((time.process_time() - began) / len(sequences))
            tokens[name] = np.concatenate([item.ravel() for item in found])
    for name, taken in seconds.items():
        ratio = median(seconds["usual"]) / median(taken)
        same = float((tokens[name] == tokens["usual"]).mean())
        print(f"{name}: {median(taken):.3f} s an item, ratio {ratio:.2f}, {same:.1%} the same tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
