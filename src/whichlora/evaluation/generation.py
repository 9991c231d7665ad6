"""Generates the answers of a model to items, greedily and in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from whichlora.data.encoding import Encoded, Encoder, line_ends, special_ids
from whichlora.data.tasks.items import Item
from whichlora.evaluation.finite import check_finite
from whichlora.evaluation.inference import run_batched
from whichlora.evaluation.likelihood import answer_log_likelihood
from whichlora.models import packing
from whichlora.models.adapter_layers import unwrap_peft

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens with which chat models end a turn; some models declare them in generation_config.json alone."""


def generate(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return the greedily decoded answer to each item, up to an end token or the end of the line.

    For an item that is split into windows, return the answer with the highest mean log-likelihood per token; an empty
    answer is returned only if the answers of all windows are empty.

    Raises:
        NonFiniteError: A logit is not finite.
    """
    windows = [(k, window) for k, item in enumerate(items) for window in encoder.windows(item)]
    window_counts = Counter(k for k, _ in windows)
    texts = _generate_each(model, encoder, [window for _, window in windows], name=name)
    likelihood = np.full(len(windows), -np.inf)
    candidates = [i for i, (k, _) in enumerate(windows) if window_counts[k] > 1 and texts[i]]
    if candidates:
        answers = [
            Encoded(encoder.prompt(windows[i][1]), encoder.continuation(windows[i][1], f" {texts[i]}"))
            for i in candidates
        ]
        total = answer_log_likelihood(model, encoder, answers, name=f"{name} windows")
        inputs = [windows[i][1] for i in candidates]
        check_finite(total, inputs, what=f"the {encoder.task.name} answer log-likelihoods", name=name)
        likelihood[candidates] = total / [len(answer.answer) for answer in answers]
    best: dict[int, int] = {}
    for i, (k, _) in enumerate(windows):
        if k not in best or likelihood[i] > likelihood[best[k]]:
            best[k] = i
    return [texts[best[k]] for k in range(len(items))]


class _FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Records for each text whether its logits have been finite in all steps, and not all equal in the first.

    The flags stay on the device, because reading them would wait for every token.

    Attributes:
        finite: (texts,); None before the first step.
    """

    def __init__(self) -> None:
        self.finite: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        smallest, largest = scores.aminmax(dim=-1)  # both are NaN if any logit is
        earlier = smallest < largest if self.finite is None else self.finite
        self.finite = earlier & smallest.isfinite() & largest.isfinite()
        return scores


def _generate_each(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return the greedy continuation of each item's prompt; an item is not split into windows."""
    tokenizer = encoder.tokenizer
    prompts = [encoder.prompt(item) for item in items]
    texts = [""] * len(items)
    ends = line_ends(tokenizer) | end_tokens(model, tokenizer)
    can_pack = packing.can_pack(model) and all(len(prompt) > 1 for prompt in prompts)

    def prefill_cache(batch: list[int]) -> Any:
        if not can_pack:
            return None
        return packing.prefill(model, [prompts[i] for i in batch], room=encoder.task.answer_tokens)

    def generate_batch(batch: list[int]) -> None:
        longest = max(len(prompts[i]) for i in batch)
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        check = _FiniteLogits()
        output = greedy_continuations(
            model,
            ids,
            mask,
            tokenizer,
            new_tokens=encoder.task.answer_tokens,
            ends=ends,
            cache=prefill_cache(batch),
            check=check,
        )
        if check.finite is not None:
            flags = np.where(check.finite.cpu().numpy(), 0.0, np.nan)
            check_finite(flags, [items[i] for i in batch], what=f"the {encoder.task.name} logits", name=name)
        for i, text in zip(batch, tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True), strict=True):
            texts[i] = text.partition("\n")[0].strip()

    run_batched([len(p) for p in prompts], generate_batch, name=name, unit="item")
    return texts


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that end a text or a turn: of the tokenizer, of config.json, and `_END_OF_TURN`.

    An ordinary token that config.json declares as the end is not one, since it may be part of an answer.
    """
    eos = unwrap_peft(model).config.get_text_config().eos_token_id
    declared = {eos} if isinstance(eos, int) else set(eos or ())
    vocabulary = tokenizer.get_vocab()
    declared.update(vocabulary[token] for token in _END_OF_TURN if token in vocabulary)
    return frozenset({tokenizer.eos_token_id, *(declared & special_ids(tokenizer))})


def greedy_continuations(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    tokenizer: Any,
    *,
    new_tokens: int,
    ends: Collection[int],
    cache: Any = None,
    check: LogitsProcessor | None = None,
) -> Tensor:
    """Return prompts with their greedy continuations, (texts, tokens).

    Nothing of the model's generation_config.json is used, not even its end tokens: `generate` would fill in all that
    the config passed to it leaves open.

    Args:
        ids, mask: prompts padded on the left, and their attention mask, (texts, longest).
        new_tokens: maximum number of tokens after the prompts.
        ends: the tokens that end a continuation.
        cache: key-value cache of the prompts without their last tokens, or None.
        check: called with the logits of each step, which it returns unchanged.
    """
    base = unwrap_peft(model)
    saved, base.generation_config = base.generation_config, GenerationConfig()
    try:
        output: Tensor = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            past_key_values=cache,
            logits_processor=LogitsProcessorList([] if check is None else [check]),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                use_cache=True,
                max_new_tokens=new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=sorted(ends),
            ),
        )
        return output
    finally:
        base.generation_config = saved
