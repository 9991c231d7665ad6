"""Which models can read packed texts."""

from __future__ import annotations

from typing import Any

import torch

from whichlora.models.adapter_layers import unwrap_peft

FAMILIES = (
    "apertus",
    "bloom",
    "cohere",
    "cohere2",
    "cwm",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm",
    "glm4",
    "gpt2",
    "gpt_neox",
    "granite",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo2",
    "olmo3",
    "opt",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "stablelm",
    "starcoder2",
    "xglm",
)
"""Architectures for which a test shows that tokens interact through attention only, and which keys it reads."""
_UNTESTED = ("add_cross_attention", "slow_but_exact")
"""Switches of their configurations that no test has on: an encoder, and BLOOM's products in slices."""
_LAYERS = {"full_attention", "sliding_attention"}
"""Layer types whose keys are all those of a text up to a token, or the last ones within the layer's window."""


def is_tested(config: Any) -> bool:
    """Return whether a model's text part is of one of `FAMILIES`, without the switches of `_UNTESTED`."""
    text = config.get_text_config()
    return text.model_type in FAMILIES and not _untested(text)


def _untested(text: Any) -> list[str]:
    return [name for name in _UNTESTED if getattr(text, name, False)]


def can_pack(model: Any) -> bool:
    """Return whether examples can be packed: a tested family, its usual attention, and only layer types of `_LAYERS`.

    Whether texts are longer than the window of a sliding layer does not matter: `attend` applies the window to these.
    """
    return not reason_to_pad(model)


def reason_to_pad(model: Any) -> str:
    """Return why examples cannot be packed, in words; "" if they can."""
    config = model.config.get_text_config()
    if not is_tested(config):
        switches = "".join(f" with {name}" for name in _untested(config))
        return f"packing is not tested with the architecture {config.model_type}{switches}"
    usual = "sdpa" if unwrap_peft(model)._supports_sdpa else "eager"  # some have a formula that SDPA does not compute
    if config._attn_implementation != usual:
        return f"the model's attention is {config._attn_implementation}, not {usual}"
    others = set(getattr(config, "layer_types", None) or ()) - _LAYERS
    return f"the model has layers of type {', '.join(sorted(others))}" if others else ""


def can_share_prefixes(model: Any) -> bool:
    """Return whether shared prefixes can be computed once: not with dropout, whose masks differ between texts."""
    return not any(
        (isinstance(module, torch.nn.Dropout) and module.p > 0) or _drops_by_function(module)
        for module in model.modules()
    ) and not getattr(model.config.get_text_config(), "attention_dropout", 0)


def _drops_by_function(module: torch.nn.Module) -> bool:
    """Return whether a module holds a rate of dropout, as OPT's and BLOOM's blocks do in place of a layer for it."""
    return any("dropout" in name and isinstance(rate, float) and rate > 0 for name, rate in vars(module).items())
