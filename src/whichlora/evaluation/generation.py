"""Generates the answers of a model to items, greedily and in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from whichlora.data.encoding import Encoded, Encoder, line_ends
from whichlora.data.tasks.items import Item
from whichlora.evaluation.finite import check_finite
from whichlora.evaluation.inference import run_batched
from whichlora.evaluation.likelihood import answer_log_likelihood
from whichlora.models import packing

_CONFIG_OVERRIDES = {"use_cache": True, "cache_implementation": None, "num_beams": 1, "stop_strings": None}
"""Overrides of settings in a model's generation config."""


def generate(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return the greedily decoded answer to each item, up to the end-of-sequence token or the end of the line.

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
        self.finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        smallest, largest = scores.aminmax(dim=-1)  # both are NaN if any logit is
        earlier = smallest < largest if self.finite is None else self.finite
        self.finite = earlier & smallest.isfinite() & largest.isfinite()
        return scores


def _generate_each(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return the greedy continuation of each item's prompt; an item is not split into windows."""
    tokenizer = encoder.tokenizer
    prompts = [encoder.prompt(item) for item in items]
    texts = [""] * len(items)
    eos = model.generation_config.eos_token_id
    stop_tokens = sorted({*line_ends(tokenizer), *([eos] if isinstance(eos, int) else eos or [])})
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
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            past_key_values=prefill_cache(batch),
            max_new_tokens=encoder.task.answer_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stop_tokens,
            logits_processor=LogitsProcessorList([check]),
            **_CONFIG_OVERRIDES,
        )
        if check.finite is not None:
            flags = np.where(check.finite.cpu().numpy(), 0.0, np.nan)
            check_finite(flags, [items[i] for i in batch], what=f"the {encoder.task.name} logits", name=name)
        for i, text in zip(batch, tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True), strict=True):
            texts[i] = text.partition("\n")[0].strip()

    run_batched([len(p) for p in prompts], generate_batch, name=name, unit="item")
    return texts
