"""Long contexts: cut around the answer to learn from, and split into overlapping windows to be answered.

The model reads a context that is too long for one prompt in windows. To learn from, there is the window that holds the
answer; at scoring time the model answers every window and its most likely answer counts, whatever the right one is.
Both come from the same grid, so that the model sees in training what it will see in scoring.

The constants belong to the version of the QA prompt, which rises with them.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from whichlora.data.tasks.items import QaItem

PROMPT_TOKENS = 1024
"""The most tokens of a prompt with a context, instruction and question included; fewer where the model reads fewer."""
STRIDE = 0.75
"""How far the next window begins, as a share of the context tokens in a window: the rest is in both."""
LEAST_TOKENS = 32
"""Fewer context tokens in a window than these are of no use: the model is refused."""

Count = Callable[[Sequence[str]], Sequence[int]]
"""Returns the number of tokens of each of these texts."""

# Words with the space before them. What has no space for long is cut too.
_PIECES = re.compile(r"\s*\S{1,32}|\s+$")


def split(item: QaItem, count: Count, budget: int) -> list[QaItem]:
    """Return the item with each window of its context, of about `budget` tokens, and without its answers.

    Neighbours share a quarter of a window, so that an answer shorter than that is whole in one of them.
    """
    return [_cut(item, start, end, with_answers=False) for start, end in _spans(item.context, count, budget)]


def around_answer(item: QaItem, count: Count, budget: int) -> QaItem:
    """Return the item with the window of `split` that has the most text on both sides of the first answer.

    An answer that is whole in no window begins one of its own.
    """
    answer_start, answer_end = item.answer_start, item.answer_start + len(item.answers[0])
    holding = [(s, e) for s, e in _spans(item.context, count, budget) if s <= answer_start and answer_end <= e]
    if holding:
        start, end = max(holding, key=lambda span: min(answer_start - span[0], span[1] - answer_end))
    else:
        _, end = _spans(item.context[answer_start:], count, budget)[0]
        start, end = answer_start, answer_start + end
    return _cut(item, start, end, with_answers=True)


def _spans(context: str, count: Count, budget: int) -> list[tuple[int, int]]:
    """Return where windows of whole pieces begin and end, in characters, from the first to the last of the context."""
    pieces = list(_PIECES.finditer(context))
    total = [0, *accumulate(count([piece.group() for piece in pieces]))]
    spans = []
    first, past = 0, 0
    while past < len(pieces):
        past = max(first + 1, bisect_right(total, total[first] + budget) - 1)
        if past >= len(pieces):  # the last window is as long as the others
            first = min(first, bisect_left(total, total[-1] - budget))
        spans.append((pieces[first].start(), pieces[past - 1].end()))
        first = min(past, max(first + 1, bisect_left(total, total[first] + STRIDE * budget)))
    return spans


def _cut(item: QaItem, start: int, end: int, *, with_answers: bool) -> QaItem:
    text = item.context[start:end]
    start += len(text) - len(text.lstrip())
    if not with_answers:
        return replace(item, context=text.strip(), answers=(), answer_start=-1)
    return replace(item, context=text.strip(), answers=item.answers[:1], answer_start=item.answer_start - start)
