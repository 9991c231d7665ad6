"""Writes GGUF files of small models as llama.cpp's conversion does, with the `gguf` package."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3"}


def write_gguf(
    model: Path,
    file: Path,
    *,
    quantization: str = "F32",
    change: Callable[[Any], None] = lambda writer: None,
    tokenizer: bool = True,
    architecture: str | None = None,
) -> Path:
    """Write a saved model with a byte-level tokenizer to a GGUF file.

    Args:
        quantization: type of the matrices, such as Q8_0.
        change: is called with the writer, before it writes.
        architecture: in the place of the model's own.
    """
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((model / "config.json").read_text())
    arch = ARCHITECTURES[config["model_type"]]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(file, architecture or arch)
    writer.add_name("tiny")
    writer.add_type("model")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if arch == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(width)
    if arch == "gemma3":
        writer.add_key_length(width)
        writer.add_value_length(width)
        writer.add_sliding_window(config["sliding_window"])
    if tokenizer:
        _add_tokenizer(writer, model)
    change(writer)
    kind = gguf.GGMLQuantizationType[quantization]
    for name, weight in load_file(model / "model.safetensors").items():
        stored = weight
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            count = heads if "q_proj" in name else kv_heads
            stored = weight.reshape(count, 2, weight.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        if arch == "gemma3" and name.endswith("norm.weight"):
            stored = weight + 1
        if stored.ndim == 2 and quantization != "F32":
            writer.add_tensor(_name(name, arch), gguf.quants.quantize(stored, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_name(name, arch), stored.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _name(name: str, arch: str) -> str:
    if name == "lm_head.weight":
        return "output.weight"
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    base, _, end = name.rpartition(".")
    if base in outer:
        return f"{outer[base]}.{end}"
    _, _, block, part = base.split(".", 3)
    after = "post_attention_norm" if arch == "gemma3" else "ffn_norm"
    return f"blk.{block}.{(_BLOCK | {'post_attention_layernorm': after})[part]}.{end}"


def _add_tokenizer(writer: Any, model: Path) -> None:
    saved = json.loads((model / "tokenizer.json").read_text())
    vocabulary = sorted(saved["model"]["vocab"], key=saved["model"]["vocab"].__getitem__)
    special = {token["content"]: token["id"] for token in saved["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in special else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in saved["model"]["merges"]])
    writer.add_bos_token_id(special["<s>"])
    writer.add_eos_token_id(special["</s>"])
    writer.add_pad_token_id(special["</s>"])
    writer.add_unk_token_id(special["<unk>"])
