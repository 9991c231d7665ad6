"""Splits contexts that are too long for one prompt into sliding windows.

A training example uses the window that contains the answer. In scoring the model answers every window, and its most
likely answer counts, without regard to the gold answer. Both use the same grid of windows, so that training and scoring
see the same kind of input.

Increment `prompts.QA_VERSION` when one of the constants changes, because they determine the prompts.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from whichlora.data.tasks.items import QaItem

PROMPT_TOKENS = 1024
"""Maximum number of tokens of a QA prompt, instruction and question included; less if the model's context is short."""
STRIDE = 0.75
"""Distance between the starts of neighbouring windows, as a fraction of the context tokens per window."""
MIN_TOKENS = 32
"""Minimum number of context tokens per window; a model with less room is rejected."""

Count = Callable[[Sequence[str]], Sequence[int]]
"""A function that returns the number of tokens of each text."""

# Words with their leading whitespace; words of more than 32 characters are cut into pieces of 32.
_PIECES = re.compile(r"\s*\S{1,32}|\s+$")


def split(item: QaItem, count: Count, budget: int) -> list[QaItem]:
    """Return one copy of the item per window of about `budget` context tokens, without its answers.

    Neighbouring windows overlap by a quarter, so that one of them contains any shorter answer completely.
    """
    return [_cut(item, start, end, with_answers=False) for start, end in _spans(item.context, count, budget)]


def around_answer(item: QaItem, count: Count, budget: int) -> QaItem:
    """Return the item with the window of `split` in which the first answer is farthest from both ends.

    If no window contains the whole answer, the window starts at the answer.
    """
    answer_start, answer_end = item.answer_start, item.answer_start + len(item.answers[0])
    containing = [(s, e) for s, e in _spans(item.context, count, budget) if s <= answer_start and answer_end <= e]
    if containing:
        start, end = max(containing, key=lambda span: min(answer_start - span[0], span[1] - answer_end))
    else:
        _, end = _spans(item.context[answer_start:], count, budget)[0]
        start, end = answer_start, answer_start + end
    return _cut(item, start, end, with_answers=True)


def _spans(context: str, count: Count, budget: int) -> list[tuple[int, int]]:
    """Return (start, end) character offsets of windows of whole pieces that cover the context in order."""
    pieces = list(_PIECES.finditer(context))
    cumulative = [0, *accumulate(count([piece.group() for piece in pieces]))]
    spans = []
    first, stop = 0, 0
    while stop < len(pieces):
        stop = max(first + 1, bisect_right(cumulative, cumulative[first] + budget) - 1)
        if stop >= len(pieces):  # extend the last window backwards to full length
            first = min(first, bisect_left(cumulative, cumulative[-1] - budget))
        spans.append((pieces[first].start(), pieces[stop - 1].end()))
        first = min(stop, max(first + 1, bisect_left(cumulative, cumulative[first] + STRIDE * budget)))
    return spans


def _cut(item: QaItem, start: int, end: int, *, with_answers: bool) -> QaItem:
    text = item.context[start:end]
    start += len(text) - len(text.lstrip())
    if not with_answers:
        return replace(item, context=text.strip(), answers=(), answer_start=-1)
    return replace(item, context=text.strip(), answers=item.answers[:1], answer_start=item.answer_start - start)
