"""Compares training of a model with windowed layers and a large vocabulary, by default one of Gemma 3 270M's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks import training
from benchmarks.harness import Bench, Block, Result, Row
from whichlora.config.options import RUN_OPTIONS
from whichlora.models.loading import load_tokenizer, locate, read_config

DEFAULT = RUN_OPTIONS["model"][0]
SHAPE: dict[str, Any] = {
    **{"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "vocab_size": 262_144},
    **{"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256},
    **{"sliding_window": 512, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3},
}
"""The shape of Gemma 3 270M, from its config.json."""
_WORK = "training, {}, windowed layers and a vocabulary of 262,144"
ROWS = (
    Row(name="training-windowed-fp32", work=_WORK.format("fp32"), against=training.TRAINER, goal=3),
    Row(
        name="training-windowed-bf16",
        work=_WORK.format("bf16"),
        against=f"{training.TRAINER}, `bf16=True`",
        goal=3,
        precision="bf16",
    ),
)


def measure(bench: Bench, wanted: Sequence[str], row: Row) -> list[Result]:
    """Measure the row with the model of the option `model`, or with random weights if that is the packaged one."""
    name = save_random_model(bench) if bench.model == DEFAULT else bench.model
    config = read_config(locate(name)).get_text_config()
    weights = bench.model if name == bench.model else "Random weights"
    window = getattr(config, "sliding_window", None)
    windows = f"windows of {window} tokens" if window else "no windows"
    note = f"{weights}: {windows}, a vocabulary of {config.vocab_size:,}."
    results = training.measure(replace(bench, model=name), wanted, [row])
    return [replace(result, notes=[note]) for result in results]


def save_random_model(bench: Bench) -> str:
    """Save a random model of `SHAPE`, with the packaged model's tokenizer, to the scratch folder; return its path."""
    import torch
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    folder = bench.scratch / "windowed"
    torch.manual_seed(0)
    tokenizer = load_tokenizer(locate(DEFAULT))
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    AutoModelForCausalLM.from_config(Gemma3TextConfig(**SHAPE, **special)).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return str(folder)


BLOCKS = [Block(rows=[row], minutes=4, measure=partial(measure, row=row)) for row in ROWS]
