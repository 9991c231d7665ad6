"""Checks before training that every text with its answer fits into the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from whichlora.config.plan import TestSet
from whichlora.data import windows
from whichlora.data.encoding import Encoder
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Item, Task
from whichlora.data.tasks.items import PairItem, QaItem
from whichlora.evaluation.scoring_methods import Generation, Scoring

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase  # options are resolved without it

_TOKENS_PER_BYTE = 2
"""More tokens than tokenizers make of a byte of UTF-8, also if they normalise or add special tokens."""
_SPECIAL = 16
"""More special tokens than are added to a text."""


def check_context(
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    task: Task,
    items: Mixture,
    tests: Sequence[TestSet],
    scoring: Scoring,
    *,
    trains: bool,
) -> None:
    """Check the items of a run: training examples, and prompts with their longest label or generated answer.

    Args:
        limit: context length of the model in tokens; None if there is none.
        task: the task of `items`, which are validated with `scoring`.
        tests: the test sets, with tasks and scoring methods of their own.
        trains: whether the training items are used.

    Raises:
        OptionError: An item does not fit; the message names it.
    """
    if limit is None:
        return
    encoder = Encoder(task, tokenizer, max_length=limit)
    if trains:
        _check_trained(encoder, items.train)
    for validation in items.validation.values():
        _check_scored(encoder, validation, scoring)
    for test in tests:
        _check_scored(Encoder(test.task, tokenizer, max_length=limit), test.items, test.scoring)


def _check_trained(encoder: Encoder, items: Sequence[Item]) -> None:
    for item in _candidates(encoder, items):
        if isinstance(item, PairItem):
            encoder.pair(item)
        else:
            encoder.example(item)


def _check_scored(encoder: Encoder, items: Sequence[Item], scoring: Scoring) -> None:
    for item in _candidates(encoder, items):
        if isinstance(item, PairItem):
            encoder.pair(item)
            continue
        for window in encoder.windows(item):
            encoder.check_room(window, generates=isinstance(scoring, Generation))


def _candidates(encoder: Encoder, items: Sequence[Item]) -> list[Item]:
    """Return the items that might not fit, by the bytes of their texts: to tokenise all would take seconds."""
    limit = encoder.max_length
    return [item for item in items if limit is not None and _most_tokens(encoder.task, item) > limit]


def _most_tokens(task: Task, item: Item) -> int:
    """Return a number of tokens that an item with its answer does not exceed."""
    if isinstance(item, PairItem):
        return _bound(item.word, item.translation)
    answer = max(_bound(task.answer(item), *task.label_words(item)), task.answer_tokens)
    prompt = _bound(task.prompt(item))
    if isinstance(item, QaItem):  # a longer context is divided into windows
        rest = _bound(task.prompt(replace(item, context="")))
        prompt = min(prompt, max(windows.PROMPT_TOKENS, rest + windows.MIN_TOKENS))
    return prompt + answer


def _bound(*texts: str) -> int:
    return max(len(text.encode()) for text in texts) * _TOKENS_PER_BYTE + _SPECIAL
