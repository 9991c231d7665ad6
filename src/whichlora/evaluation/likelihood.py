"""Computes label probabilities and the log-likelihood of answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from whichlora.data.batching import collate, common_prefix_length
from whichlora.data.encoding import Encoded, Encoder
from whichlora.data.tasks.items import Item
from whichlora.evaluation import inference
from whichlora.evaluation.finite import check_labels
from whichlora.models import packing
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.answer_logits import answer_logits, logits_at
from whichlora.models.forward_checks import is_same, plain_logits, remembered, sample_text
from whichlora.models.kernels.patching import patched_forward
from whichlora.models.rope_switch import switch_length

_KEY_VALUE_LAYERS = {DynamicLayer, DynamicSlidingWindowLayer}
_PROMPT_END = 32
"""Characters at the end of a prompt with which the tokens of its labels are looked up."""


def label_probabilities(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> np.ndarray[Any, Any]:
    """Return the probability of each label as the answer, normalised over the labels, (items, labels).

    If all labels begin with different tokens, the logits of these tokens after the prompt are compared, as in greedy
    decoding; otherwise the log-likelihoods of the whole labels are. This is decided separately for each wording of the
    labels (language), so that an item's score does not depend on the languages of other items.

    Raises:
        NonFiniteError: A logit is not finite.
    """
    result = np.empty((len(items), len(encoder.task.labels)))
    for labels, positions in _by_labels(encoder, items):
        result[positions] = _of_labels(model, encoder, [items[i] for i in positions], labels, name=name)
    return result


def _by_labels(encoder: Encoder, items: Sequence[Item]) -> list[tuple[list[list[int]], list[int]]]:
    """Return the token ids of labels, and the positions of the items that have them."""
    known: dict[tuple[tuple[str, ...], str], list[list[int]]] = {}
    groups: dict[str, tuple[list[list[int]], list[int]]] = {}
    for position, item in enumerate(items):
        # No token of a label depends on more of the prompt than its end.
        key = encoder.task.label_words(item), encoder.prompt_text(item)[-_PROMPT_END:]
        labels = known[key] if key in known else known.setdefault(key, encoder.labels(item))
        groups.setdefault(str(labels), (labels, []))[1].append(position)
    return list(groups.values())


def _of_labels(
    model: Any, encoder: Encoder, items: list[Item], labels: list[list[int]], *, name: str
) -> np.ndarray[Any, Any]:
    """Return the probabilities of labels, (items, labels), given their token ids."""
    first = [ids[0] for ids in labels]
    if len(set(first)) == len(first):
        scores = _next_token_logits(model, encoder, [encoder.prompt(i) for i in items], first, name=name)
    else:
        examples = [Encoded(encoder.prompt(item), ids) for item in items for ids in labels]
        scores = answer_log_likelihood(model, encoder, examples, name=name).reshape(len(items), -1)
    check_labels(scores, items, what=f"the {encoder.task.name} label logits", name=name)
    return softmax(scores)


def _next_token_logits(
    model: Any, encoder: Encoder, prompts: list[list[int]], tokens: list[int], *, name: str
) -> np.ndarray[Any, Any]:
    """Return the logits of `tokens` after each prompt, (prompts, tokens).

    Prefixes that several prompts share (the instruction and often the premise) are computed once per batch. If the
    model does not support packing, the common prefix of all prompts is computed once and cached, unless that changes
    the logits; prompts are then read whole.
    """
    cached = not packing.can_pack(model) and remembered(model, _continues_cached_prefix)
    with _head_restricted_to(model, tokens):
        return (_read_after_prefix if cached else _read_whole)(model, encoder, prompts, len(tokens), name=name)


def _head_restricted_to(model: Any, tokens: list[int]) -> AbstractContextManager[None]:
    """Restrict the LM head to the logits of `tokens`, in fp32 or wider, because in bf16 logits are often equal."""
    head = unwrap_peft(model).get_output_embeddings()
    dtype = torch.promote_types(head.weight.dtype, torch.float32)
    weight, bias = head.weight[tokens].to(dtype), None if head.bias is None else head.bias[tokens].to(dtype)

    def forward(states: Tensor) -> Tensor:
        with torch.autocast(states.device.type, enabled=False):
            return linear(states.to(dtype), weight, bias)

    return patched_forward([(head, forward)])


def _read_whole(
    model: Any, encoder: Encoder, prompts: list[list[int]], count: int, *, name: str
) -> np.ndarray[Any, Any]:
    """Return the `count` logits of the head after each prompt, (prompts, count), from packed or padded prompts."""
    result = np.empty((len(prompts), count))

    def read(batch: list[int], tensors: dict[str, Any]) -> None:
        inputs = {key: value for key, value in tensors.items() if key != "labels"}
        layout = inputs.get("layout")
        ends = [path[-1] for path in layout.paths] if layout else [[len(prompts[i]) - 1] for i in batch]
        logits = logits_at(model, torch.tensor(ends, device=model.device), **inputs, use_cache=False)
        result[batch] = logits.reshape(len(batch), count).cpu().numpy()

    examples = [Encoded(prompt, []) for prompt in prompts]
    inference.run_examples(model, encoder, examples, read, name=name, unit="item", packed_items=inference.PACKED_ITEMS)
    return result


def _read_after_prefix(
    model: Any, encoder: Encoder, prompts: list[list[int]], count: int, *, name: str
) -> np.ndarray[Any, Any]:
    """Return the logits as `_read_whole` does, but compute the common prefix of all prompts once."""
    result = np.empty((len(prompts), count))
    prefix = prompts[0][: common_prefix_length(prompts)]
    suffixes = [p[len(prefix) :] for p in prompts]
    cache = _cache_of(model, prefix) if prefix else None

    def read_suffixes(batch: list[int]) -> None:
        ids = collate([Encoded(suffixes[i], []) for i in batch], encoder.tokenizer.pad_token_id)["input_ids"]
        last = torch.tensor([[len(suffixes[i]) - 1] for i in batch], device=model.device)
        result[batch] = _continue(model, cache, ids, last)[:, 0].cpu().numpy()

    inference.run_batched([len(s) for s in suffixes], read_suffixes, name=name, unit="item")
    return result


def _cache_of(model: Any, prefix: list[int]) -> Any:
    return model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True).past_key_values


def _continue(model: Any, cache: Any, ids: Tensor, positions: Tensor) -> Tensor:
    """Return the logits of texts that follow a cached prefix, (texts, positions, vocabulary); the cache is kept."""
    cache = copy.deepcopy(cache)
    if cache is not None:
        cache.batch_repeat_interleave(len(ids))
    return logits_at(model, positions, input_ids=ids.to(model.device), past_key_values=cache)


def _continues_cached_prefix(model: Any) -> bool:
    """Return whether the logits of texts that follow a cached prefix are those of the whole texts.

    The cache must consist of keys and values alone. A recurrent state is not the state at another text's end, most
    architectures with one start anew if several tokens follow, and LongRoPE caches keys of the prefix's own factors.
    """
    if switch_length(model.config) is not None:
        return False
    text = sample_text(model)
    prefix, suffixes = text[:6], [text[6:9], text[9:11]]
    try:
        cache = _cache_of(model, prefix)
        if type(cache) is not DynamicCache or not {type(layer) for layer in cache.layers} <= _KEY_VALUE_LAYERS:
            return False
        ids = collate([Encoded(suffix, []) for suffix in suffixes], pad=0)["input_ids"]
        logits = _continue(model, cache, ids, torch.tensor([[2], [1]], device=model.device))[:, 0]
        expected = [plain_logits(model, prefix + suffix)[-1] for suffix in suffixes]
    except Exception as error:  # without the cache it is computed anyway, so any reason will do
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    return all(is_same(row, plain, model) for row, plain in zip(logits, expected, strict=True))


def answer_log_likelihood(model: Any, encoder: Encoder, examples: list[Encoded], *, name: str) -> np.ndarray[Any, Any]:
    """Return the log-likelihood of each answer given its prompt, (examples,)."""
    result = np.empty(len(examples))

    def read(batch: list[int], tensors: dict[str, Any]) -> None:
        logits, targets = answer_logits(model, tensors)
        tokens = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
        answers = torch.split(tokens, [len(examples[i].answer) for i in batch])
        result[batch] = torch.stack([part.sum() for part in answers]).cpu().numpy()

    inference.run_examples(model, encoder, examples, read, name=name, unit="answer")
    return result


def softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the softmax of each row of scores, (rows, columns)."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: np.ndarray[Any, Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return result
