"""Turns items into token ids, and token ids into batches."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from whichlora.data import windows
from whichlora.data.tasks.align_words import PairItem
from whichlora.data.tasks.base import Item, Task
from whichlora.data.tasks.qa import QaItem
from whichlora.errors import OptionError
from whichlora.models.pooling import tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from whichlora.config.plan import Plan

IGNORED = -100
"""The label of a position that is not learnt."""


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
        return EncodedPair(tokens(self.tokenizer, item.word), tokens(self.tokenizer, item.translation))

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


def encoder_of(plan: Plan, task: Task | None = None) -> Encoder:
    """Return an encoder of a plan's task, or of another, for the plan's model."""
    return Encoder(task or plan.task, plan.tokenizer, max_length=plan.shape.context)


def common_beginning(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many tokens all prompts begin with, not counting the last of any, which predicts the answer."""
    before = [prompt[:-1] for prompt in prompts]
    columns = enumerate(zip(*before, strict=False))
    return next((i for i, column in columns if len(set(column)) > 1), min(map(len, before)))


def collate(examples: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both (items, longest), padded on the right.

    No attention mask: under causal attention no real position sees the padding after it.
    """
    longest = max(map(len, examples))
    ids = torch.full((len(examples), longest), pad)
    labels = torch.full((len(examples), longest), IGNORED)
    for row, example in enumerate(examples):
        start, end = len(example.prompt), len(example)
        ids[row, :end] = torch.tensor(example.prompt + example.answer)
        labels[row, start:end] = torch.tensor(example.answer)
    return {"input_ids": ids, "labels": labels}


def by_length(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]:
    """Yield batches of positions of similar length, longest first, so that memory runs out at once or not at all."""
    batch: list[int] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (longest * (len(batch) + 1) > max_tokens or len(batch) == max_items):
            yield batch
            batch = []
        if not batch:
            longest = lengths[position]
        batch.append(position)
    if batch:
        yield batch


def in_order(lengths: Sequence[int], *, max_tokens: int, max_items: int) -> Iterator[list[int]]:
    """Yield batches of neighbouring positions, whose lengths are added up."""
    batch: list[int] = []
    total = 0
    for position, length in enumerate(lengths):
        if batch and (total + length > max_tokens or len(batch) == max_items):
            yield batch
            batch, total = [], 0
        batch.append(position)
        total += length
    if batch:
        yield batch


def sorted_by_ids(examples: Sequence[Encoded]) -> tuple[list[int], list[int]]:
    """Return positions sorted by token ids, and how many tokens of each example its neighbour before does not share."""
    order = sorted(range(len(examples)), key=lambda i: (examples[i].prompt, examples[i].answer))
    prompts: list[list[int]] = [[], *(examples[i].prompt for i in order)]
    shared = [common_beginning(neighbours) for neighbours in pairwise(prompts)]
    return order, [len(examples[i]) - common for i, common in zip(order, shared, strict=True)]


def to_device(batch: dict[str, Any], device: Any) -> dict[str, Any]:
    """Move a batch."""
    return {name: value.to(device) for name, value in batch.items()}
