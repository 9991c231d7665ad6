"""Training steps of several runs in one pass beside one after the other: `python -m benchmarks.packed`.

For a machine with a GPU: by default on the shape of Llama-3.1-8B with random weights in bf16, for 1, 2, 4 and 8
adapters and batches of 1, 4 and 16. A step is forward and backward over the batches of all adapters, LoRA of rank 8 on
all linear layers; items have 63 random tokens, of which 2 are the answer. Optimisers, validation and tracking are left
out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.harness import spread, timed

LLAMA_8B = {
    **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192},
}
TOKENS, ANSWER = 63, 2


def base(blocks: int, width: int) -> Any:
    """Return the model with random weights, with fewer blocks or of another width if asked for."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = LLAMA_8B | {"num_hidden_layers": blocks}
    if width != LLAMA_8B["hidden_size"]:
        shape |= {"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 8192}
    on_gpu = torch.cuda.is_available()
    with torch.device("cuda" if on_gpu else "cpu"):
        config = LlamaConfig(**shape, torch_dtype="bfloat16" if on_gpu else "float32")
        return AutoModelForCausalLM.from_config(config, dtype=config.dtype, attn_implementation="sdpa")


def batches(model: Any, count: int, items: int) -> list[Any]:
    """Return so many runs' batches, each with an adapter of its own around the same weights."""
    from peft import LoraConfig, get_peft_model

    from whichlora.data.encoding import Encoded
    from whichlora.models.adapter_layers import adapter_modules
    from whichlora.models.loading import copy_around_weights
    from whichlora.training.multi_adapter import Batch

    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = get_peft_model(copy_around_weights(model), config)
        tokens = torch.randint(100, 8000, (items, TOKENS)).tolist()
        examples = [Encoded(row[:-ANSWER], row[-ANSWER:]) for row in tokens]
        arithmetic = partial(torch.autocast, model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
        layers = dict(adapter_modules(adapter))
        more: dict[str, Any] = {"count": 1.0, "shares": True, "uncast": (), "autocast": arithmetic}
        found.append(Batch(model=adapter, layers=layers, examples=examples, **more))
    return found


def together(runs: Sequence[Any]) -> None:
    """Take a step of every run in one pass."""
    from whichlora.training.multi_adapter import backward_together

    backward_together(runs)
    _wait()


def alone(runs: Sequence[Any]) -> None:
    """Take a step of every run, one after the other, as training does without `pack`."""
    from whichlora.data.batching import to_device
    from whichlora.models import packing
    from whichlora.models.answer_logits import answer_loss

    for run in runs:
        with packing.attention(run.model), run.autocast():
            loss, _ = answer_loss(run.model, to_device(packing.pack(run.examples), run.model.device))
        loss.backward()
    _wait()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line for each number of adapters and batch."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", default="1,2,4,8")
    parser.add_argument("--items", default="1,4,16", help="of each adapter's batch")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=LLAMA_8B["num_hidden_layers"])
    parser.add_argument("--width", type=int, default=LLAMA_8B["hidden_size"])
    given = parser.parse_args(arguments)
    model = base(given.blocks, given.width)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{device}, {model.dtype}, {sum(p.numel() for p in model.parameters()):,} parameters, torch {torch.__version__}"
    )
    print("adapters, items each: ms a step together (quartiles), ms one after the other (quartiles), ratio of medians")
    for count in map(int, given.adapters.split(",")):
        for items in map(int, given.items.split(",")):
            runs = batches(model, count, items)
            ways = {"together": partial(together, runs), "alone": partial(alone, runs)}
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(given.turns + 1):
                for way in ways if turn % 2 else reversed(ways):
                    seconds = timed(ways[way])()["wall"]
                    if turn:  # the first warms up
                        taken[way].append(1000 * seconds)
            found = {way: spread(values) for way, values in taken.items()}
            shown = [f"{s['median']:.1f} ({s['low']:.1f} to {s['high']:.1f})" for s in found.values()]
            ratio = found["alone"]["median"] / found["together"]["median"]
            print(f"{count}, {items}: {shown[0]}, {shown[1]}, {ratio:.2f}", flush=True)
            del runs, ways
    return 0


if __name__ == "__main__":
    sys.exit(main())
