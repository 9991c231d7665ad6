"""Shows what a model reads of a task: lengths in its tokens, and prompts with their answers."""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence

import numpy as np

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import Item
from whichlora.data.tasks.items import PairItem, QaItem
from whichlora.data_check.inventory import Data
from whichlora.errors import OptionError
from whichlora.text_tables import shown, table

MEASURED = 1000
"""Number of random items of a split whose lengths are measured, and of the longest ones that are read at most."""
SHORTER = 50
"""Items are read from the one with the most characters on, until so many successive ones fit whole into a prompt."""
EXAMPLES = 3
"""Number of prompts shown in each language."""
_HEAD, _TAIL = 900, 400
"""Characters at both ends of a long prompt that are shown."""


def lengths_table(encoder: Encoder, data: Data, *, generates: bool) -> str:
    """Return the lengths in tokens, and how many items are divided into windows or do not fit into the context.

    Args:
        encoder: the encoder of a run, with the model's context length.
        data: the items.
        generates: whether the model generates the answers, for which room is left.
    """
    rows: list[Sequence[object]] = [("language", "split", "median", "95 %", "longest", "in windows", "too long")]
    for code, splits in data.items():
        for split, items in splits.items():
            if items:
                rows.append((code, split, *_lengths(encoder, items, trained=split == "train", generates=generates)))
    return table(rows)


def _lengths(encoder: Encoder, items: Sequence[Item], *, trained: bool, generates: bool) -> tuple[object, ...]:
    """Return the cells of a row of `lengths_table`; a count ends in "+" if there are more."""
    unlimited = _unlimited(encoder)
    drawn = random.Random(0).sample(items, min(MEASURED, len(items)))
    lengths = [_length(unlimited, item) for item in drawn]
    by_characters = sorted(items, key=lambda item: -sum(map(len, encoder.task.texts(item).values())))
    longest = max(*lengths, *(_length(unlimited, item) for item in by_characters[:SHORTER]))
    windows = too_long = shorter = read = 0
    for item in by_characters:
        try:
            divided = _reads(encoder, item, trained=trained, generates=generates) > 1
            windows += divided
            shorter = 0 if divided else shorter + 1
        except OptionError:
            too_long, shorter = too_long + 1, 0
        read += 1
        if shorter == SHORTER or read == MEASURED:
            break
    more = "+" if shorter < SHORTER and read < len(items) else ""
    median, high = np.quantile(lengths, (0.5, 0.95))
    counts = (f"{count:,}{more if count else ''}" for count in (windows, too_long))
    return round(median), round(high), longest, *counts


def _unlimited(encoder: Encoder) -> Encoder:
    """Return an encoder without a limit of lengths, which is to measure them."""
    unlimited = copy.copy(encoder)
    unlimited.max_length = None
    return unlimited


def _length(encoder: Encoder, item: Item) -> int:
    """Return the number of tokens of an item with its answer."""
    if isinstance(item, PairItem):
        pair = encoder.pair(item)
        return max(len(pair.word), len(pair.translation))
    if isinstance(item, QaItem):  # an example has only a window of a long context
        return len(encoder.prompt(item)) + len(encoder.answer(item, encoder.task.answer(item).strip(), ended=True))
    return len(encoder.example(item))


def _reads(encoder: Encoder, item: Item, *, trained: bool, generates: bool) -> int:
    """Return in how many windows an item is read.

    Raises:
        OptionError: it does not fit into the context.
    """
    if isinstance(item, PairItem):
        encoder.pair(item)
        return 1
    windows = encoder.windows(item)
    if trained:
        encoder.example(item)
    else:
        for window in windows:
            encoder.check_room(window, generates=generates)
    return len(windows)


def cut_answers(encoder: Encoder, data: Data) -> list[str]:
    """Return how many test answers of each language have more tokens than are generated.

    Of the answers of a split, `MEASURED` random ones are measured at most.
    """
    whole = _unlimited(encoder)
    limit, lines = encoder.task.answer_tokens, list[str]()
    for code, splits in data.items():
        items = random.Random(0).sample(splits["test"], min(MEASURED, len(splits["test"])))
        lengths = [len(whole.answer(item, whole.task.answer(item).strip())) for item in items]
        longer = sum(length > limit for length in lengths)
        if longer:
            counted = f"{longer:,} of {len(items):,} test answers in {code}"
            lines.append(
                f"  {counted} have more than the {limit} tokens that are generated; the longest has {max(lengths):,}."
            )
    return lines


def sampled(data: Data) -> bool:
    """Return whether a split has more items than are measured."""
    return any(len(items) > MEASURED for splits in data.values() for items in splits.values())


def examples(encoder: Encoder, items: Sequence[Item]) -> str:
    """Return some prompts as the model reads them in training, with their answers, special tokens included.

    Lines of a prompt begin with `|`, lines of an answer with `>`.
    """
    blocks = []
    for item in items[:EXAMPLES]:
        if isinstance(item, PairItem):
            prompt, answer = item.word, item.translation
        else:
            try:
                example = encoder.example(item)
            except OptionError as error:
                blocks.append(f"  item {shown(item.id)}: {shown(error.allowed)}")
                continue
            prompt, answer = (_decoded(encoder, ids) for ids in (example.prompt, example.answer))
        blocks.append("\n".join([f"  item {shown(item.id)}", *_lines("|", _cut(prompt)), *_lines(">", answer)]))
    return "\n".join(blocks)


def _decoded(encoder: Encoder, ids: list[int]) -> str:
    return str(encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _cut(text: str) -> str:
    left_out = len(text) - _HEAD - _TAIL
    return text if left_out <= 0 else f"{text[:_HEAD]} ... ({left_out:,} characters) ... {text[-_TAIL:]}"


def _lines(mark: str, text: str) -> list[str]:
    return [f"    {mark} {line}" for line in shown(text).split("\n")]
