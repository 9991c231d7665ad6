"""Turns items into token ids, and token ids into batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from whichlora.data import windows
from whichlora.data.tasks.base import Task
from whichlora.data.tasks.items import Item, PairItem, QaItem
from whichlora.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of the answer after it, the end-of-text token included."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a word and of its translation, each after a first token that every text has."""

    word: list[int]
    translation: list[int]


class Encoder:
    """Encodes a task's items with a model's tokenizer."""

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None) -> None:
        self.task, self.tokenizer, self.max_length = task, tokenizer, max_length

    def prompt(self, item: Item) -> list[int]:
        """Return the prompt's ids, with the special tokens the tokenizer puts first.

        Raises:
            OptionError: it is longer than the model's context.
        """
        ids: list[int] = self.tokenizer(self.task.prompt(item), verbose=False).input_ids
        if self.max_length is not None and len(ids) >= self.max_length:
            self._refuse(item, len(ids))
        return ids

    def continuation(self, item: Item, text: str) -> list[int]:
        """Return the ids of `text` as it is encoded after the item's prompt."""
        prompt = self.prompt(item)
        together: list[int] = self.tokenizer(self.task.prompt(item) + text).input_ids
        if together[: len(prompt)] == prompt and len(together) > len(prompt):
            return together[len(prompt) :]
        # The tokenizer merged across the border. Generation can only go on from the prompt's own tokens.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def windows(self, item: Item) -> list[Item]:
        """Return what the model answers for an item: the item itself, or windows of a context that is too long."""
        budget = self._context_budget(item)
        if budget is None:
            return [item]
        assert isinstance(item, QaItem)
        return list(windows.split(item, self._lengths, budget))

    def example(self, item: Item) -> Encoded:
        """Return prompt and answer, to learn from; a context that is too long is cut around the answer.

        Raises:
            OptionError: it is longer than the model's context.
        """
        budget = self._context_budget(item)
        if budget is not None:
            assert isinstance(item, QaItem)
            item = windows.around_answer(item, self._lengths, budget)
        answer = self.continuation(item, self.task.answer(item))
        return Encoded(self.prompt(item), [*answer, self.tokenizer.eos_token_id])

    def pair(self, item: Item) -> EncodedPair:
        """Return a word and its translation, to be read each for itself."""
        assert isinstance(item, PairItem)
        return EncodedPair(word_tokens(self.tokenizer, item.word), word_tokens(self.tokenizer, item.translation))

    def _context_budget(self, item: Item) -> int | None:
        """Return how many tokens of its context fit into one prompt; None where the whole item does.

        Raises:
            OptionError: the model's context has no room beside instruction, question and answer.
        """
        if not isinstance(item, QaItem):
            return None
        limit = windows.PROMPT_TOKENS
        if self.max_length is not None:
            limit = min(limit, self.max_length - self.task.answer_tokens)
        whole, rest = self._lengths(
            [self.task.prompt(item), self.task.prompt(replace(item, context="."))], special=True
        )
        if whole <= limit:
            return None
        if limit - rest < windows.LEAST_TOKENS:
            self._refuse(item, whole)
        return limit - rest

    def _lengths(self, texts: Sequence[str], *, special: bool = False) -> list[int]:
        encoded = self.tokenizer(list(texts), add_special_tokens=special, verbose=False)
        return [len(ids) for ids in encoded.input_ids]

    def _refuse(self, item: Item, length: int) -> NoReturn:
        raise OptionError(
            "model",
            self.tokenizer.name_or_path,
            f"reads {self.max_length} tokens, but item {item.id} in {item.language} has {length}",
        )


@functools.lru_cache(maxsize=4)
def line_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the tokens that end a line, and the one that ends the text."""
    marks = ("\n", "Ċ", "<0x0A>")  # as itself, in byte-level BPE, and as a byte that SentencePiece falls back on
    perhaps = [token for piece, token in tokenizer.get_vocab().items() if any(mark in piece for mark in marks)]
    return frozenset({tokenizer.eos_token_id, *(token for token in perhaps if "\n" in tokenizer.decode([token]))})


def word_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return a text's token ids after a first token that every text has: BOS, or what stands for it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    first = next(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None)
    return [first, *ids]
