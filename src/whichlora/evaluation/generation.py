"""Generates the answers of a model to items, greedily and in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from whichlora.data.encoding import Encoded, Encoder
from whichlora.data.tasks.items import Item
from whichlora.evaluation.answer_ends import cut, end_tokens, stopping, task_end_tokens
from whichlora.evaluation.finite import check_finite
from whichlora.evaluation.inference import run_batched
from whichlora.evaluation.likelihood import answer_log_likelihood
from whichlora.evaluation.windows_notice import announce
from whichlora.models import packing
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.forward_checks import is_same, plain_logits, remembered, sample_text
from whichlora.models.rope_switch import switch_length


def generate(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return the greedily decoded answer to each item, up to an end token or the text at which the task's answers end.

    For an item that is split into windows, return the answer with the highest mean log-likelihood per token; an empty
    answer is returned only if the answers of all windows are empty.

    Raises:
        NonFiniteError: A logit is not finite.
    """
    windows = [(k, window) for k, item in enumerate(items) for window in encoder.windows(item)]
    window_counts = Counter(k for k, _ in windows)
    prompts = [encoder.prompt(window) for _, window in windows]

    def continue_longest(tokens: int) -> None:
        ids, mask = _padded_left([max(prompts, key=len)], encoder.tokenizer.pad_token_id)
        use_cache = decoding_of(model).cached
        greedy_continuations(model, ids, mask, 0, new_tokens=tokens, ends=(), use_cache=use_cache)

    answer_tokens = encoder.task.answer_tokens
    announce(list(map(len, prompts)), len(items), answer_tokens, name=name, continue_longest=continue_longest)
    texts = _generate_each(model, encoder, [window for _, window in windows], prompts, name=name)
    likelihood = np.full(len(windows), -np.inf)
    candidates = [i for i, (k, _) in enumerate(windows) if window_counts[k] > 1 and texts[i]]
    if candidates:
        answers = [Encoded(prompts[i], encoder.answer(windows[i][1], texts[i])) for i in candidates]
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


def _generate_each(
    model: Any, encoder: Encoder, items: Sequence[Item], prompts: list[list[int]], *, name: str
) -> list[str]:
    """Return the greedy continuation of each item's prompt; an item is not split into windows."""
    tokenizer = encoder.tokenizer
    texts = [""] * len(items)
    ends = end_tokens(model, tokenizer) | task_end_tokens(encoder)
    can_pack = packing.can_pack(model) and all(len(prompt) > 1 for prompt in prompts)

    def prefill_cache(batch: list[int]) -> Any:
        if not can_pack:
            return None
        return packing.prefill(model, [prompts[i] for i in batch], room=encoder.task.answer_tokens)

    def generate_batch(batch: list[int], decoding: Decoding) -> None:
        ids, mask = _padded_left([prompts[i] for i in batch], tokenizer.pad_token_id)
        check = _FiniteLogits()
        output = greedy_continuations(
            model,
            ids,
            mask,
            tokenizer.pad_token_id,
            new_tokens=encoder.task.answer_tokens,
            ends=ends,
            cache=prefill_cache(batch) if decoding.cached else None,
            use_cache=decoding.cached,
            check=check,
            stop=stopping(encoder, ids.shape[1]),
        )
        if check.finite is not None:
            flags = np.where(check.finite.cpu().numpy(), 0.0, np.nan)
            check_finite(flags, [items[i] for i in batch], what=f"the {encoder.task.name} logits", name=name)
        for i, text in zip(
            batch, tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True), strict=True
        ):
            texts[i] = cut(text, encoder.task.until)

    for positions, decoding in _apart(model, [len(p) for p in prompts], encoder.task.answer_tokens):

        def work(batch: list[int], positions: list[int] = positions, decoding: Decoding = decoding) -> None:
            generate_batch([positions[k] for k in batch], decoding)

        lengths = [len(prompts[i]) for i in positions]
        run_batched(lengths, work, name=name, unit="item", max_items=None if decoding.batched else 1)
    return texts


@dataclass(frozen=True)
class Decoding:
    """How the answers of a model are decoded without a change of its logits.

    Attributes:
        batched: whether prompts of different lengths are padded on the left to one batch.
        cached: whether a token is read once, and later ones use its keys and values or the recurrent state.
    """

    batched: bool = True
    cached: bool = True


def decoding_of(model: Any) -> Decoding:
    """Return the fastest way of decoding with which a model's logits are those of each text read whole."""
    decoding: Decoding = Decoding() if packing.can_pack(model) else remembered(model, _fastest_decoding)
    return decoding


@torch.no_grad()
def _fastest_decoding(model: Any) -> Decoding:
    """Find the result of `decoding_of`: recurrent layers may read the padding, and some architectures have no cache."""
    for decoding in (Decoding(), Decoding(batched=False)):
        texts = [sample_text(model, 9), sample_text(model, 6)]
        batches = [texts] if decoding.batched else [[text] for text in texts]
        try:
            if all(_decodes_plainly(model, batch) for batch in batches):
                return decoding
        except Exception as error:  # whatever it is, there is a slower way
            if isinstance(error, torch.OutOfMemoryError):
                raise
    return Decoding(batched=False, cached=False)


def _decodes_plainly(model: Any, texts: list[list[int]], steps: int = 3) -> bool:
    """Return whether the logits of a few decoded tokens are those of each text read whole."""
    recorded: list[tuple[Tensor, Tensor]] = []

    def record(ids: Tensor, scores: Tensor) -> Tensor:
        recorded.append((ids.clone(), scores.clone()))
        return scores

    ids, mask = _padded_left(texts, pad=0)
    greedy_continuations(model, ids, mask, 0, new_tokens=steps, ends=(), check=record)
    starts = [ids.shape[1] - len(text) for text in texts]
    return len(recorded) == steps and all(
        is_same(scores[row], plain_logits(model, seen[row, start:].tolist())[-1], model)
        for seen, scores in recorded
        for row, start in enumerate(starts)
    )


def _apart(model: Any, lengths: list[int], new_tokens: int) -> list[tuple[list[int], Decoding]]:
    """Return the positions of prompts that may share a batch, and how each group is decoded.

    With LongRoPE these are the prompts that remain short, those that are long already, and those that reach the switch
    while they are continued: their cached keys would be of other factors than the later tokens.
    """
    switch, decoding = switch_length(model.config), decoding_of(model)
    if switch is None:
        return [(list(range(len(lengths))), decoding)]
    short = [i for i, length in enumerate(lengths) if length + new_tokens <= switch]
    long = [i for i, length in enumerate(lengths) if length > switch + 1]  # a cache is made without the last token
    others = sorted(set(range(len(lengths))).difference(short, long))
    groups = ((short, decoding), (long, decoding), (others, Decoding(batched=False, cached=False)))
    return [(positions, how) for positions, how in groups if positions]


def _padded_left(texts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Return texts padded on the left, and their attention mask, both (texts, longest)."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, longest - len(text) :] = torch.tensor(text)
        mask[row, longest - len(text) :] = 1
    return ids, mask


def greedy_continuations(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    pad: int,
    *,
    new_tokens: int,
    ends: Collection[int],
    cache: Any = None,
    use_cache: bool = True,
    check: Callable[[Tensor, Tensor], Tensor] | None = None,
    stop: Sequence[StoppingCriteria] = (),
) -> Tensor:
    """Return prompts with their greedy continuations, (texts, tokens).

    Nothing of the model's generation_config.json is used, not even its end tokens: `generate` would fill in all that
    the config passed to it leaves open.

    Args:
        ids, mask: prompts padded on the left, and their attention mask, (texts, longest).
        pad: id of the padding token.
        new_tokens: maximum number of tokens after the prompts.
        ends: the tokens that end a continuation.
        cache: key-value cache of the prompts without their last tokens, or None.
        use_cache: whether each token is read once; otherwise all tokens are read for each new one.
        check: called with the tokens before each step and the step's logits, which it returns unchanged.
        stop: what else ends a continuation.
    """
    base = unwrap_peft(model)
    saved, base.generation_config = base.generation_config, GenerationConfig()
    try:
        output: Tensor = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            past_key_values=cache,
            logits_processor=LogitsProcessorList([] if check is None else [check]),
            stopping_criteria=StoppingCriteriaList(stop),
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=1,
                use_cache=use_cache,
                max_new_tokens=new_tokens,
                pad_token_id=pad,
                eos_token_id=sorted(ends) or None,
            ),
        )
        return output
    finally:
        base.generation_config = saved
