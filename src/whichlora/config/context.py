"""Checks before training that every text with its answer fits into the model's context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from whichlora.config.plan import TestSet
from whichlora.data import windows
from whichlora.data.encoding import Encoder
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Item, Task
from whichlora.data.tasks.items import PairItem, QaItem
from whichlora.evaluation.scoring_methods import Generation, Scoring

_TOKENS_PER_BYTE = 2
"""More tokens than tokenizers make of a byte of UTF-8, also if they normalise or add special tokens."""
_SPECIAL = 16
"""More special tokens than are added to a text."""


def check_context(
    encoder_of: Callable[[Task], Encoder],
    task: Task,
    items: Mixture,
    tests: Sequence[TestSet],
    scoring: Scoring,
    *,
    trains: bool,
) -> None:
    """Check the items of a run: training examples, and prompts with their longest label or generated answer.

    Args:
        encoder_of: returns the encoder of a task for the model.
        task: the task of `items`, which are validated with `scoring`.
        tests: the test sets, with tasks and scoring methods of their own.
        trains: whether the training items are used.

    Raises:
        OptionError: An item does not fit, or the chat template refuses its turns; the message names it.
    """
    encoder = encoder_of(task)
    for test in tests:
        check_turns(encoder_of(test.task), test.items)
    for split in (items.train if trains else (), *items.validation.values()):
        check_turns(encoder, split)
    if trains:
        _check_trained(encoder, items.train)
    for validation in items.validation.values():
        check_scored(encoder, validation, scoring)
    for test in tests:
        check_scored(encoder_of(test.task), test.items, test.scoring)


def check_turns(encoder: Encoder, items: Sequence[Item]) -> None:
    """Check one conversation with each sequence of roles: most templates refuse some, such as two users in a row.

    Raises:
        OptionError: The chat template refuses the turns of an item.
    """
    if encoder.chat is not None:
        for item in {tuple(turn["role"] for turn in encoder.task.turns(item)): item for item in items}.values():
            encoder.prompt_text(item)


def _check_trained(encoder: Encoder, items: Sequence[Item]) -> None:
    for item in _candidates(encoder, items, answered=True):
        if isinstance(item, PairItem):
            encoder.pair(item)
        else:
            encoder.example(item)


def check_scored(encoder: Encoder, items: Sequence[Item], scoring: Scoring) -> None:
    """Check the prompts of items, with their longest label or generated answer.

    Raises:
        OptionError: One does not fit; the message names it.
    """
    for item in _candidates(encoder, items):
        if isinstance(item, PairItem):
            encoder.pair(item)
            continue
        for window in encoder.windows(item):
            encoder.check_room(window, generates=isinstance(scoring, Generation))


def _candidates(encoder: Encoder, items: Sequence[Item], *, answered: bool = False) -> list[Item]:
    """Return the items that might not fit, by the bytes of their texts: to tokenise all would take seconds."""
    limit = encoder.max_length
    return [item for item in items if limit is not None and _most_tokens(encoder, item, answered=answered) > limit]


def _most_tokens(encoder: Encoder, item: Item, *, answered: bool) -> int:
    """Return a number of tokens that an item with any label, or its own answer if `answered`, does not exceed."""
    task = encoder.task
    if isinstance(item, PairItem):
        return _bound(item.word, item.translation)
    answers = [task.answer(item)] if answered else []
    answer = max(_bound(*answers, *task.label_words(item)), task.answer_tokens)
    prompt = _bound(encoder.prompt_text(item))
    if isinstance(item, QaItem):  # a longer context is divided into windows
        rest = _bound(encoder.prompt_text(replace(item, context="")))
        prompt = min(prompt, max(windows.PROMPT_TOKENS, rest + windows.MIN_TOKENS))
    return prompt + answer


def _bound(*texts: str) -> int:
    return max((len(text.encode()) for text in texts), default=0) * _TOKENS_PER_BYTE + _SPECIAL
