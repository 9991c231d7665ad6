"""Converts a GGUF file of a Llama model to the folder layout of transformers' `save_pretrained`.

The `gguf` package is used directly: loading the file through transformers takes three times as long, and drops the
pre-tokenizer that splits digits, so that "\n\n5" gets other token ids than in pretraining. The weights are written in
float32, because dequantised Q4_1 values do not fit bfloat16 exactly.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gguf import GGUFReader

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_gguf(file: str, folder: Path, *, name: str) -> None:
    """Write the model in the GGUF `file` to `folder`, with a progress bar over the tensors that shows `name`.

    All tensors become float32. The embedding is also the LM head and is written once.
    """
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file
    from tqdm import tqdm

    reader = GGUFReader(file)
    _write_configs(reader, folder)
    _write_tokenizer(reader, folder)
    heads = {"attn_q": _value(reader, "llama.attention.head_count")}
    heads["attn_k"] = _value(reader, "llama.attention.head_count_kv")
    tensors = {}
    for tensor in tqdm(reader.tensors, desc=f"converting {name}", unit="tensor"):
        weight = dequantize(tensor.data, tensor.tensor_type)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            # llama.cpp interleaves the two halves of each head for rotary embedding; transformers keeps them apart.
            rows, columns = weight.shape
            halves = weight.reshape(heads[kind], rows // heads[kind] // 2, 2, columns)
            weight = halves.swapaxes(1, 2).reshape(rows, columns)
        tensors[_parameter_name(tensor.name)] = weight.copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    # safetensors makes its files readable by the owner only, but a cache created by root may serve other users.
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def _write_configs(reader: GGUFReader, folder: Path) -> None:
    """Write config.json and generation_config.json from the GGUF metadata."""
    ids = {
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id"),
    }
    config = ids | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": _value(reader, "llama.embedding_length"),
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "num_attention_heads": _value(reader, "llama.attention.head_count"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "rms_norm_eps": round(_value(reader, "llama.attention.layer_norm_rms_epsilon"), 9),  # stored as a float32
        "rope_parameters": {"rope_theta": _value(reader, "llama.rope.freq_base"), "rope_type": "default"},
        "tie_word_embeddings": True,
        "vocab_size": _value(reader, "llama.vocab_size"),
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", ids)


def _write_tokenizer(reader: GGUFReader, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json (with the chat template) from the GGUF metadata."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    tokens = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    # The pre-tokenizer that `tokenizer.ggml.pre = smollm` names.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, _value(reader, "tokenizer.ggml.token_type"), strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {f"{k}_token": tokens[_value(reader, f"tokenizer.ggml.{v}_token_id")] for k, v in names.items()}
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _value(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _parameter_name(name: str) -> str:
    """Return transformers' name of the tensor that GGUF calls `name`."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, _ = name.split(".")
    return f"model.layers.{block}.{_BLOCK_NAMES[kind]}.weight"


def _value(reader: GGUFReader, key: str) -> Any:
    """Return the value of a metadata field. It exists, because the hash of the file was verified."""
    return reader.fields[key].contents()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
