"""Tiny models of all causal language models of transformers, from their configurations alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size", "lru_width", "emb_dim"), 32),
    **dict.fromkeys(("attention_hidden_size", "embedding_dim"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "n_inner", "d_inner"), 64),
    **dict.fromkeys(("ffn_hidden_size", "mamba_d_ssm"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "mamba_n_heads", "linear_num_value_heads", "rotary_dim"), 4),
    **{"depth": 2, "out_hidden_size": 32, "num_position_embeddings": 16, "image_size": 28, "patch_size": 14},
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads", "num_experts_per_tok", "moe_k"), 2),
    **dict.fromkeys(("num_experts_per_token", "expand"), 2),
    **dict.fromkeys(("head_dim", "attention_head_size", "linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "conv_kernel"), 4),
    **dict.fromkeys(("time_step_rank",), 4),
    **dict.fromkeys(("n_shared_experts", "n_group", "topk_group", "n_groups", "mamba_n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_d_head", "qk_head_dim"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "attention_window_size", "index_topk"), 2048),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "shape_vocab_size"), 900),
    **{"pronunciation_vocab_size": 910, "pad_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
}
"""Values of the entries of a configuration that has them."""

_LATENT = {
    "qk_head_dim": None,
    "head_dim": None,
    "num_experts_per_tok": 2,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
}
_HEADS, _DEPTH = {"head_dim": 8}, {"num_hidden_layers": 4}
_LAYERS = ["mamba", "hybrid"] * 2
OWN: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots3_note_text"), _LATENT),
    **dict.fromkeys(("glm4_moe_lite", "glm_moe_dsa", "minicpm3", "youtu"), _LATENT),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), _HEADS),
    **dict.fromkeys(("olmo_hybrid", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _DEPTH),
    "bamba": {"attn_layer_indices": [1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "longcat_flash": {"qk_head_dim": None, "head_dim": 8, "num_key_value_heads": 4, "ffn_hidden_size": 64},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 4},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"]},
    "zamba": {
        **{"num_hidden_layers": 4, "layers_block_type": _LAYERS, "layer_types": None, "attention_hidden_size": 64},
        **{"attention_head_dim": 16, "n_mamba_heads": 2, "mamba_dt_rank": 4},
    },
    "zamba2": {
        **{"num_hidden_layers": 4, "layers_block_type": _LAYERS, "layer_types": None, "attention_hidden_size": 64},
        **{"attention_head_dim": 16, "n_mamba_heads": 4, "mamba_headdim": 16, "num_mem_blocks": 1},
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs besides; None leaves an entry out."""


def _shrunk(defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a configuration, and of the ones nested in it, that are set to be small."""
    own = OWN.get(defaults["model_type"], {})
    sizes = {name: size for name, size in SIZES.items() if defaults.get(name) is not None or name.endswith("token_id")}
    nested = {
        name: _shrunk(value) for name, value in defaults.items() if isinstance(value, dict) and value.get("model_type")
    }
    return {name: value for name, value in {**sizes, **nested, **own}.items() if value is not None}


def save_family(folder: Path, family: str, tokenizer: str, **fields: Any) -> Path:
    """Save a random tiny model of a family, with the tokenizer of another model, to `folder` and return it.

    Raises:
        Exception: The family has no such configuration; the models have many types of errors.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[family]
    chosen = {**_shrunk(config().to_dict()), **{k: v for k, v in fields.items() if v is not None}}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(**chosen))
    if sum(parameter.numel() for parameter in model.parameters()) > 2e7:
        raise ValueError("its configuration has parts that `SIZES` does not make small")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**chosen))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and parameter.is_floating_point() and "A_log" not in name:
                parameter.mul_(4)  # otherwise all answers are nearly equally likely
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tokenizer) / file, folder / file)
    return folder
