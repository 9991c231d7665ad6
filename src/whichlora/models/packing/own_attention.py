"""Leads to `attend` from attention modules that do not pass a layout on, or do not use transformers' interface.

Most architectures hand the arguments of a forward pass on to transformers' interface of attention functions, where
`attend` is registered. Those of this module need help: some lose the arguments on the way, some are older than the
interface and compute attention themselves. Their positions are those of each text in either case: rotary or added ones,
which are inputs of the model, or ALiBi (arXiv 2108.12409), a bias of the keys by their positions in the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import dropout

from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.kernels.patching import patched_forward
from whichlora.models.packing.text_attention import attend

Arguments = dict[str, Any]
"""The arguments `layout` and `stop_layer` of a model's latest forward pass."""


@contextmanager
def led_to_attend(model: Any) -> Iterator[None]:
    """Let the attention modules of a model that need it compute `attend` inside this context.

    A backward pass that repeats a forward pass repeats the latest one.
    """
    base = unwrap_peft(model)
    modules = [(module, type(module).__name__) for module in base.modules()]
    arguments: Arguments = {}
    handles = []
    if any(name in _FORGETFUL or name in _FORWARDS for _, name in modules):
        record = partial(_record, arguments)
        for module in (base, base.get_decoder()):  # the decoder is called alone for hidden states
            handles.append(module.register_forward_pre_hook(record, with_kwargs=True))
    hand_on = partial(_hand_on, arguments)
    handles += [m.register_forward_pre_hook(hand_on, with_kwargs=True) for m, name in modules if name in _FORGETFUL]
    forwards = [(m, partial(_FORWARDS[name], m, arguments)) for m, name in modules if name in _FORWARDS]
    try:
        with patched_forward(forwards):
            yield
    finally:
        for handle in handles:
            handle.remove()


def _record(arguments: Arguments, module: Any, positional: Any, named: dict[str, Any]) -> None:
    if "layout" in named:
        arguments.update(layout=named["layout"], stop_layer=named.get("stop_layer"))


def _hand_on(arguments: Arguments, module: Any, positional: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return positional, {**named, **arguments}


def _bloom(
    module: Any,
    arguments: Arguments,
    hidden_states: Tensor,
    residual: Tensor,
    alibi: Tensor,
    attention_mask: None,
    layer_past: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The forward pass of `BloomAttention`."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    query, key, value = module._reshape(module.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, module.layer_idx)

    def bias(tokens: int) -> Tensor:
        positions: Tensor = build_alibi_tensor(_ones(tokens, query), module.num_heads, torch.float32)
        return positions

    rate = module.attention_dropout.p if module.training else 0.0
    output, _ = attend(
        module, query, key, value, None, scaling=module.inv_norm_factor, bias=bias, dropout=rate, **arguments
    )
    output = module.dense(output.flatten(2))
    return residual + dropout(output, module.hidden_dropout, module.training), None


def _falcon(
    module: Any,
    arguments: Arguments,
    hidden_states: Tensor,
    alibi: Tensor | None,
    attention_mask: None,
    layer_past: Any = None,
    position_embeddings: Any = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The forward pass of `FalconAttention`, which has dropout with ALiBi alone."""
    from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb, build_alibi_tensor

    states = module._split_heads(module.query_key_value(hidden_states))
    query, key, value = (state.transpose(1, 2) for state in states)
    if alibi is None:
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    if layer_past is not None:
        key, value = layer_past.update(key, value, module.layer_idx)

    def bias(tokens: int) -> Tensor:
        positions: Tensor = build_alibi_tensor(_ones(tokens, query), module.num_heads, torch.float32)
        return positions * float(module.inv_norm_factor)

    options: dict[str, Any] = {}
    if alibi is not None:
        options = {"bias": bias, "dropout": module.attention_dropout.p if module.training else 0.0}
    output, _ = attend(module, query, key, value, None, scaling=module.inv_norm_factor, **options, **arguments)
    return module.dense(output.flatten(2)), None


def _xglm(
    module: Any, arguments: Arguments, hidden_states: Tensor, past_key_values: Any = None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The forward pass of `XGLMAttention` without an encoder."""
    states = (module.q_proj(hidden_states), module.k_proj(hidden_states), module.v_proj(hidden_states))
    query, key, value = (state.unflatten(2, (-1, module.head_dim)).transpose(1, 2) for state in states)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, module.layer_idx)
    rate = module.dropout if module.training else 0.0
    output, _ = attend(module, query, key, value, None, scaling=module.scaling, dropout=rate, **arguments)
    return module.out_proj(output.flatten(2)), None


def _ones(tokens: int, states: Tensor) -> Tensor:
    """Return the mask of a text without padding, from which ALiBi's positions are counted."""
    return torch.ones(1, tokens, dtype=torch.long, device=states.device)


_FORGETFUL = ("NemotronAttention", "StableLmAttention")
"""Attention modules that use transformers' interface, but whose blocks do not hand them their arguments."""
_FORWARDS: dict[str, Callable[..., tuple[Tensor, None]]] = {
    "BloomAttention": _bloom,
    "FalconAttention": _falcon,
    "XGLMAttention": _xglm,
}
"""What attention modules that do not use transformers' interface compute in its place."""
