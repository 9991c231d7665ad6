"""Converts a GGUF file of a packaged Llama or Gemma 3 model to the folder layout of transformers' `save_pretrained`.

The `gguf` package is used directly, so that the content is the same with every version of transformers: loading through
transformers takes three times as long, and of SmolLM2 it drops the pre-tokenizer that splits digits, so that "\n\n5"
gets other token ids than in pretraining. Both readers give equal tensors, and of Gemma 3 equal token ids. The weights
are written in float32, because dequantised 4-bit values do not fit bfloat16 exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichlora.models.gguf import tokenizers as gguf_tokenizers

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LLAMA_NAMES = _BLOCK_NAMES | {"ffn_norm": "post_attention_layernorm"}
_GEMMA3_NAMES = _BLOCK_NAMES | {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Names of the special tokens in transformers and in GGUF."""
_GEMMA3_FULL_EVERY = 6
"""One block of so many sees the whole text, the others a window; llama.cpp knows it by the architecture alone."""


def convert_gguf(file: str, folder: Path, *, name: str) -> None:
    """Write the model in the GGUF `file` to `folder`, with a progress bar over the tensors that shows `name`.

    All tensors become float32. The embedding is also the LM head and is written once.
    """
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file
    from tqdm import tqdm

    reader = GGUFReader(file)
    architecture = _ARCHITECTURES[_value(reader, "general.architecture")]
    ids = {f"{k}_token_id": _value(reader, f"tokenizer.ggml.{v}_token_id") for k, v in _ROLES.items() if k != "unk"}
    write_json(folder / "config.json", ids | architecture.config(reader))
    write_json(folder / "generation_config.json", ids)
    architecture.tokenizer(lambda key: _value(reader, f"tokenizer.ggml.{key}")).save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", _tokenizer_config(reader))
    change = architecture.change(reader)
    tensors = {}
    for tensor in tqdm(reader.tensors, desc=f"converting {name}", unit="tensor"):
        weight = change(tensor.name, dequantize(tensor.data, tensor.tensor_type))
        tensors[_parameter_name(tensor.name, architecture.block_names)] = weight.copy()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    share_weights(folder)


def _tokenizer_config(reader: GGUFReader) -> dict[str, Any]:
    """Return tokenizer_config.json, with the chat template if there is one; a base model has none."""
    tokens = _value(reader, "tokenizer.ggml.tokens")
    settings = {f"{k}_token": tokens[_value(reader, f"tokenizer.ggml.{_ROLES[k]}_token_id")] for k in _ROLES}
    architecture = _value(reader, "general.architecture")
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _value(reader, f"{architecture}.context_length"),
        "clean_up_tokenization_spaces": False,
    }
    if "tokenizer.chat_template" in reader.fields:
        settings["chat_template"] = _value(reader, "tokenizer.chat_template")
    return settings


def _sizes(reader: GGUFReader, architecture: str) -> dict[str, Any]:
    """Return what the configurations of all architectures here state of the model's sizes."""
    prefix = f"{architecture}."
    return {
        "hidden_size": _value(reader, f"{prefix}embedding_length"),
        "intermediate_size": _value(reader, f"{prefix}feed_forward_length"),
        "max_position_embeddings": _value(reader, f"{prefix}context_length"),
        "num_attention_heads": _value(reader, f"{prefix}attention.head_count"),
        "num_hidden_layers": _value(reader, f"{prefix}block_count"),
        "num_key_value_heads": _value(reader, f"{prefix}attention.head_count_kv"),
        "rms_norm_eps": round(_value(reader, f"{prefix}attention.layer_norm_rms_epsilon"), 9),  # stored as a float32
    }


def _llama_config(reader: GGUFReader) -> dict[str, Any]:
    kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32", "hidden_act": "silu"}
    return (
        kind
        | _sizes(reader, "llama")
        | {
            "rope_parameters": {"rope_theta": _value(reader, "llama.rope.freq_base"), "rope_type": "default"},
            "tie_word_embeddings": True,
            "vocab_size": _value(reader, "llama.vocab_size"),
        }
    )


def _gemma3_config(reader: GGUFReader) -> dict[str, Any]:
    kind = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "dtype": "float32"}
    blocks, width = _value(reader, "gemma3.block_count"), _value(reader, "gemma3.attention.key_length")
    rope = {"full_attention": _value(reader, "gemma3.rope.freq_base"), "sliding_attention": 10_000.0}
    return (
        kind
        | _sizes(reader, "gemma3")
        | {
            "attention_bias": False,
            "head_dim": width,
            "hidden_activation": "gelu_pytorch_tanh",
            "layer_types": [
                f"{'sliding' if (i + 1) % _GEMMA3_FULL_EVERY else 'full'}_attention" for i in range(blocks)
            ],
            "query_pre_attn_scalar": width,
            "rope_parameters": {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in rope.items()},
            "sliding_window": _value(reader, "gemma3.attention.sliding_window"),
            "tie_word_embeddings": True,
            "vocab_size": len(_value(reader, "tokenizer.ggml.tokens")),
        }
    )


def _gemma3_kind(block: int) -> str:
    return "sliding" if (block + 1) % _GEMMA3_FULL_EVERY else "full"


def _rotary_halves(reader: GGUFReader) -> Callable[[str, Any], Any]:
    """Return the change of Llama's weights: llama.cpp interleaves the halves of each head, transformers does not."""
    heads = {"attn_q": _value(reader, "llama.attention.head_count")}
    heads["attn_k"] = _value(reader, "llama.attention.head_count_kv")

    def change(name: str, weight: Any) -> Any:
        kind = name.split(".")[-2]
        if kind not in heads:
            return weight
        rows, columns = weight.shape
        return weight.reshape(heads[kind], rows // heads[kind] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)

    return change


def _centred_norms(_: GGUFReader) -> Callable[[str, Any], Any]:
    """Return the change of Gemma's weights: transformers adds 1 to the weights of norms, llama.cpp stores the sum."""
    return lambda name, weight: weight - 1 if name.endswith("norm.weight") else weight


@dataclass(frozen=True, kw_only=True)
class _Architecture:
    """How the files of an architecture are read.

    Attributes:
        block_names: transformers' names of the modules of a block, by those of GGUF.
        config: returns the content of config.json without the ids of special tokens.
        change: returns a function of a tensor's name and value that undoes what llama.cpp's conversion changed.
        tokenizer: builds the tokenizer from a function that returns a field of its metadata.
    """

    block_names: Mapping[str, str]
    config: Callable[[GGUFReader], dict[str, Any]]
    change: Callable[[GGUFReader], Callable[[str, Any], Any]]
    tokenizer: Callable[[Callable[[str], Any]], Tokenizer]


_ARCHITECTURES = {
    "llama": _Architecture(
        block_names=_LLAMA_NAMES,
        config=_llama_config,
        change=_rotary_halves,
        tokenizer=gguf_tokenizers.digits_and_bytes,
    ),
    "gemma3": _Architecture(
        block_names=_GEMMA3_NAMES,
        config=_gemma3_config,
        change=_centred_norms,
        tokenizer=gguf_tokenizers.gemma,
    ),
}


def _parameter_name(name: str, block_names: Mapping[str, str]) -> str:
    """Return transformers' name of the tensor that GGUF calls `name`."""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, block, kind, _ = name.split(".")
    return f"model.layers.{block}.{block_names[kind]}.weight"


def _value(reader: GGUFReader, key: str) -> Any:
    """Return the value of a metadata field. It exists, because the hash of the file was verified."""
    return reader.fields[key].contents()


def share_weights(folder: Path) -> None:
    """Give the weights the permissions of the configuration.

    safetensors makes its files readable by the owner only, but a cache created by root may serve other users.
    """
    (folder / "model.safetensors").chmod((folder / "config.json").stat().st_mode)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file of settings as transformers does."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
