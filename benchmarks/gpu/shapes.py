"""Saves models with the shapes of well-known ones and random weights: speed does not depend on their values."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

LLAMA_8B: dict[str, Any] = {
    **{"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192},
}
QWEN3_8B: dict[str, Any] = {
    **{"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    **{"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "max_position_embeddings": 8192},
}
GEMMA3_4B: dict[str, Any] = {
    **{"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "num_attention_heads": 8},
    **{"num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "max_position_embeddings": 8192},
    **{"query_pre_attn_scalar": 256, "sliding_window": 1024, "tie_word_embeddings": True},
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-3.1-8b": ("LlamaConfig", LLAMA_8B),
    "qwen3-8b": ("Qwen3Config", QWEN3_8B),
    "gemma-3-4b": ("Gemma3TextConfig", GEMMA3_4B),
    "tiny": ("LlamaConfig", {}),
}
"""Class and fields of the configurations by name, from the models' config.json; `tiny` only tries out the script."""


def save_random(shape: str, folder: Path) -> None:
    """Save a model of this shape in bf16, and a small tokenizer, which needs no download, to `folder`."""
    import torch
    import transformers

    from whichlora.testing import save_tiny_model

    if shape == "tiny":
        save_tiny_model(folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = transformers.AutoTokenizer.from_pretrained(save_tiny_model(Path(scratch)))
    kind, fields = SHAPES[shape]
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = getattr(transformers, kind)(**{"tie_word_embeddings": False, **fields, **special})
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
