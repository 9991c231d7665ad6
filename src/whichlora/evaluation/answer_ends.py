"""Where a generated answer ends: at a token that ends a text, a turn or a line, or at the text that the task names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from whichlora.data.encoding import Encoder, line_ends, special_ids
from whichlora.models.adapter_layers import unwrap_peft

_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|end_of_turn|>")
"""Tokens with which chat models end a turn; some models declare them in generation_config.json alone."""


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that end a text or a turn: of the tokenizer, of config.json, and `_END_OF_TURN`.

    An ordinary token that config.json declares as the end is not one, since it may be part of an answer.
    """
    eos = unwrap_peft(model).config.get_text_config().eos_token_id
    declared = {eos} if isinstance(eos, int) else set(eos or ())
    vocabulary = tokenizer.get_vocab()
    declared.update(vocabulary[token] for token in _END_OF_TURN if token in vocabulary)
    return frozenset({tokenizer.eos_token_id, *(declared & special_ids(tokenizer))})


def task_end_tokens(encoder: Encoder) -> frozenset[int]:
    """Return the tokens that end an answer of a task: that of the chat template, and all that end a line if that does.

    A line break may be part of many tokens.
    """
    turn = {encoder.chat.end_token} if encoder.chat and encoder.chat.end_token is not None else set[int]()
    lines = line_ends(encoder.tokenizer) if encoder.task.until == "\n" else frozenset[int]()
    return lines | turn


def stopping(encoder: Encoder, start: int) -> list[StoppingCriteria]:
    """Return what else ends the answers that begin at position `start`: the text `until`, if it is not a line break."""
    until = encoder.task.until
    return [_Contains(encoder.tokenizer, until, start)] if until not in ("", "\n") else []


def cut(text: str, until: str) -> str:
    """Return an answer up to the first occurrence of `until`, without white space around it."""
    return (text.partition(until)[0] if until else text).strip()


class _Contains(StoppingCriteria):  # type: ignore[misc]
    """Ends each answer that contains a text, of which a token may have a part, or more than the text."""

    def __init__(self, tokenizer: Any, until: str, start: int) -> None:
        self._tokenizer, self._until, self._start = tokenizer, until, start
        self._tail = len(until.encode()) + 4  # a token has at least a byte; some more, as a character has up to four

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        tails: Sequence[list[int]] = input_ids[:, max(self._start, input_ids.shape[1] - self._tail) :].tolist()
        texts = self._tokenizer.batch_decode(tails, skip_special_tokens=True)
        return torch.tensor([self._until in text for text in texts], device=input_ids.device)
