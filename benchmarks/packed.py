"""Compares training several adapters in one pass with training them one by one: `python -m benchmarks.packed`.

Meant for a GPU: by default the shape of Llama-3.1-8B with random bf16 weights, for 1, 2, 4 and 8 adapters and batches
of 1, 4 and 16. A step is forward and backward over the batches of all adapters, LoRA of rank 8 on all linear layers;
items have 63 random tokens, of which 2 are the answer. Optimizers, validation and tracking are excluded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.shapes import LLAMA_8B
from benchmarks.harness import quartiles_of, timed

TOKENS, ANSWER = 63, 2


def random_base_model(blocks: int, width: int) -> Any:
    """Return a model of Llama's shape with random weights, `blocks` layers and hidden size `width`."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = LLAMA_8B | {"num_hidden_layers": blocks}
    if width != LLAMA_8B["hidden_size"]:
        shape |= {"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": 8192}
    on_gpu = torch.cuda.is_available()
    with torch.device("cuda" if on_gpu else "cpu"):
        config = LlamaConfig(**shape, torch_dtype="bfloat16" if on_gpu else "float32")
        return AutoModelForCausalLM.from_config(config, dtype=config.dtype, attn_implementation="sdpa")


def make_batches(model: Any, count: int, items: int) -> list[Any]:
    """Return the batches of `count` runs, each with its own adapter around the same base weights."""
    from peft import LoraConfig, get_peft_model

    from whichlora.data.encoding import Encoded
    from whichlora.models.adapter_layers import adapter_modules
    from whichlora.models.kernels.fast_paths import TrainingPaths
    from whichlora.models.loading import copy_sharing_weights
    from whichlora.training.multi_adapter import Batch

    runs = []
    for seed in range(count):
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        adapter = get_peft_model(copy_sharing_weights(model), config)
        tokens = torch.randint(100, 8000, (items, TOKENS)).tolist()
        examples = [Encoded(row[:-ANSWER], row[-ANSWER:]) for row in tokens]
        arithmetic = partial(torch.autocast, model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16)
        layers = dict(adapter_modules(adapter))
        fields: dict[str, Any] = {
            "count": 1.0,
            "paths": TrainingPaths((), {}, ()),
            "autocast": arithmetic,
        }
        runs.append(Batch(model=adapter, layers=layers, examples=examples, **fields))
    return runs


def packed_step(runs: Sequence[Any]) -> None:
    """Run forward and backward for all runs in one pass."""
    from whichlora.training.multi_adapter import backward_together

    backward_together(runs)


def separate_steps(runs: Sequence[Any]) -> None:
    """Run forward and backward for one run after the other, as training does without `pack`."""
    from whichlora.data.batching import to_device
    from whichlora.models import packing
    from whichlora.models.answer_logits import answer_loss

    for run in runs:
        with packing.attention(run.model), run.autocast():
            loss, _ = answer_loss(run.model, to_device(packing.pack(run.examples), run.model.device))
        loss.backward()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each number of adapters with each batch size, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packed", description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", default="1,2,4,8")
    parser.add_argument("--items", default="1,4,16", help="batch sizes, in items per adapter")
    parser.add_argument("--turns", type=int, default=5, help="measurements of each method")
    parser.add_argument("--blocks", type=int, default=LLAMA_8B["num_hidden_layers"])
    parser.add_argument("--width", type=int, default=LLAMA_8B["hidden_size"])
    args = parser.parse_args(arguments)
    model = random_base_model(args.blocks, args.width)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{device}, {model.dtype}, {sum(p.numel() for p in model.parameters()):,} parameters, torch {torch.__version__}"
    )
    print("adapters, items each: ms a step together (quartiles), ms one after the other (quartiles), ratio of medians")
    for count in map(int, args.adapters.split(",")):
        for items in map(int, args.items.split(",")):
            runs = make_batches(model, count, items)
            ways = {"together": partial(packed_step, runs), "alone": partial(separate_steps, runs)}
            measured: dict[str, list[float]] = {way: [] for way in ways}
            for turn in range(args.turns + 1):
                for way in ways if turn % 2 else reversed(ways):
                    seconds = timed(ways[way])()["wall"]
                    if turn:  # the first is a warm-up
                        measured[way].append(1000 * seconds)
            summaries = {way: quartiles_of(values) for way, values in measured.items()}
            texts = [f"{s['median']:.1f} ({s['low']:.1f} to {s['high']:.1f})" for s in summaries.values()]
            ratio = summaries["alone"]["median"] / summaries["together"]["median"]
            print(f"{count}, {items}: {texts[0]}, {texts[1]}, {ratio:.2f}", flush=True)
            del runs, ways
    return 0


if __name__ == "__main__":
    sys.exit(main())
