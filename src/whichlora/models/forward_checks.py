"""Checks on a few tokens what a model's forward pass does: whether it is causal, and whether a shortcut changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from whichlora.errors import OptionError, first_line
from whichlora.models.adapter_layers import unwrap_peft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_TOKENS = 12
_LEAK, _SHORTCUT, _ROUGH = 1e-5, 1e-4, 0.05
"""Largest differences that come from rounding alone. In fp32, `_LEAK` is that of earlier logits, relative to the last
ones', if the last token changes (a mixture's experts then process other tokens together), and `_SHORTCUT` that of a
shortcut's logits, relative to their range. In bf16, where each block rounds to three digits, `_ROUGH` bounds both."""

_remembered: WeakKeyDictionary[Any, dict[Callable[[Any], Any], Any]] = WeakKeyDictionary()


def sample_text(model: Any, length: int = _TOKENS) -> list[int]:
    """Return ids of different tokens of the vocabulary."""
    vocabulary = unwrap_peft(model).get_input_embeddings().weight.shape[0]
    return [(5 + 11 * position) % vocabulary for position in range(length)]


def plain_logits(model: Any, text: list[int]) -> Tensor:
    """Return the logits of one text, read in one pass without padding and cache, in fp32, (tokens, vocabulary)."""
    ids = torch.tensor([text], device=model.device)
    logits: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    if logits.shape[:2] != ids.shape:
        raise ValueError(f"a text of {len(text)} tokens has logits of the shape {list(logits.shape)}")
    return logits[0].float()


def is_same(logits: Tensor, expected: Tensor, model: Any) -> bool:
    """Return whether logits are the expected ones up to the rounding of the model's precision."""
    share = _SHORTCUT if unwrap_peft(model).dtype == torch.float32 else _ROUGH
    bound = share * float(expected.max() - expected.min())
    return bool((logits.float() - expected).abs().max() <= bound)


def remembered(model: Any, check: Callable[[Any], Any]) -> Any:
    """Return the result of a check of a base model or of one with an adapter, made once for each base model."""
    results = _remembered.setdefault(unwrap_peft(model), {})
    if check not in results:
        results[check] = check(model)
    return results[check]


@torch.no_grad()
def check_causal(name: str, model: PreTrainedModel) -> None:
    """Check that a model reads a text, and that a changed last token changes no earlier logits.

    Raises:
        OptionError: It does not read text alone, or a token changes the logits of earlier ones.
    """
    text = sample_text(model)
    was_training = model.training
    model.eval()
    try:
        before, after = plain_logits(model, text), plain_logits(model, [*text[:-1], text[0]])
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # transformers' models raise many types
        allowed = f"must be a causal language model that reads text alone ({type(error).__name__}: {first_line(error)})"
        raise OptionError("model", name, allowed) from error
    finally:
        model.train(was_training)
    moved = (before - after).abs().amax(-1)
    if moved[:-1].max() > (_LEAK if model.dtype == torch.float32 else _ROUGH) * moved[-1]:
        allowed = "must be a causal language model, but a text's last token changes the logits of earlier ones"
        raise OptionError("model", name, f"{allowed}: its attention is bidirectional")
