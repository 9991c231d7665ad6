"""Tokenises items into prompts, continuations and word pairs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from whichlora.data import windows
from whichlora.data.chat import ChatTemplate
from whichlora.data.tasks.base import Task
from whichlora.data.tasks.items import Item, PairItem, QaItem
from whichlora.errors import OptionError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and of the answer that follows it, including the end-of-text token."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a word and of its translation, as returned by `word_tokens`."""

    word: list[int]
    translation: list[int]


class Encoder:
    """Encodes the items of a task with a model's tokenizer.

    Attributes:
        max_length: context length of the model in tokens; None for no limit.
        chat: the chat template of prompts and answers; None for plain texts.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        chat: ChatTemplate | None = None,
    ) -> None:
        self.task, self.tokenizer, self.max_length, self.chat = task, tokenizer, max_length, chat

    def prompt_text(self, item: Item) -> str:
        """Return the prompt as it is tokenised: in the form of the chat template, if there is one.

        Raises:
            OptionError: the chat template refuses the item's turns.
        """
        if self.chat is None:
            return self.task.prompt(item)
        try:
            return self.chat.prompt(self.task.turns(item))
        except ValueError as error:
            allowed = f"cannot render item {item.id} in {item.language} ({error})"
            raise OptionError("chat_template", self.chat.digest, allowed) from error

    def prompt(self, item: Item) -> list[int]:
        """Return the token ids of the prompt, including the special tokens that the tokenizer prepends.

        Special tokens that it appends, such as the end-of-text token, are left out: the answer follows. A chat template
        writes all special tokens itself.

        Raises:
            OptionError: the prompt does not fit into the model's context.
        """
        ids = self._ids(self.prompt_text(item))
        if self.max_length is not None and len(ids) >= self.max_length:
            self._reject(item, len(ids))
        return ids

    def continuation(self, item: Item, text: str) -> list[int]:
        """Return the token ids of `text` as a continuation of the item's prompt."""
        prompt = self.prompt(item)
        joint = self._ids(self.prompt_text(item) + text)
        if joint[: len(prompt)] == prompt and len(joint) > len(prompt):
            return joint[len(prompt) :]
        # The tokenizer merged tokens across the boundary, but generation starts after the prompt's own tokens.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def answer(self, item: Item, text: str, *, ended: bool = False) -> list[int]:
        """Return the token ids of an answer to the item's prompt.

        Args:
            ended: whether to add the token that ends an answer: the end-of-text token, or that of the assistant's turn.
        """
        if self.chat is None:
            ids = self.continuation(item, f" {text}")
        else:
            ids = self.continuation(item, self.chat.separator + text + (self.chat.end if ended else ""))
            ended = ended and not self.chat.end
        return [*ids, self.tokenizer.eos_token_id] if ended else ids

    def labels(self, item: Item) -> list[list[int]]:
        """Return the token ids of each label as the answer to the item's prompt.

        If those of one label are the beginning of another's, as of "1" and "10", all have the token that ends an
        answer: the shorter one would always be the more likely one without it.
        """
        words = self.task.label_words(item)
        labels = [self.answer(item, word) for word in words]
        ordered = sorted(labels)  # a list comes right before those that begin with it
        if any(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ordered)):
            labels = [self.answer(item, word, ended=True) for word in words]
        return labels

    def windows(self, item: Item) -> list[Item]:
        """Return the inputs to predict from: the item itself, or one item per window of an overlong context."""
        budget = self._context_budget(item)
        if budget is None:
            return [item]
        assert isinstance(item, QaItem)
        return list(windows.split(item, self._lengths, budget))

    def example(self, item: Item) -> Encoded:
        """Return a training example: prompt and answer, with an overlong context cut to a window around the answer.

        Raises:
            OptionError: prompt and answer do not fit into the model's context.
        """
        budget = self._context_budget(item)
        if budget is not None:
            assert isinstance(item, QaItem)
            item = windows.around_answer(item, self._lengths, budget)
        text = self.task.answer(item).removeprefix(" ")
        # White space around an answer is no part of a turn: most templates strip it, and so does scoring.
        answer = self.answer(item, text if self.chat is None else text.strip(), ended=True)
        encoded = Encoded(self.prompt(item), answer)
        self._check_length(item, len(encoded), " with its answer")
        return encoded

    def check_room(self, item: Item, *, generates: bool) -> None:
        """Check that a prompt leaves room for its longest label, or for the longest answer that may be generated.

        Raises:
            OptionError: they do not fit into the model's context.
        """
        answer = self.task.answer_tokens - 1  # the last generated token is not read
        if not generates:
            answer = max(map(len, self.labels(item)))
        self._check_length(item, len(self.prompt(item)) + answer, f" with {answer} tokens for the answer")

    def pair(self, item: Item) -> EncodedPair:
        """Return the token ids of a word and its translation as separate inputs.

        Raises:
            OptionError: one of them does not fit into the model's context.
        """
        assert isinstance(item, PairItem)
        pair = EncodedPair(word_tokens(self.tokenizer, item.word), word_tokens(self.tokenizer, item.translation))
        self._check_length(item, max(len(pair.word), len(pair.translation)))
        return pair

    def _context_budget(self, item: Item) -> int | None:
        """Return the number of tokens of the item's context that fit into one prompt; None if the whole item fits.

        Raises:
            OptionError: instruction, question and answer leave no room for a context.
        """
        if not isinstance(item, QaItem):
            return None
        limit = windows.PROMPT_TOKENS
        if self.max_length is not None:
            limit = min(limit, self.max_length - self.task.answer_tokens)
        whole, rest = self._lengths(
            [self.prompt_text(item), self.prompt_text(replace(item, context="."))], special=self.chat is None
        )
        if whole <= limit:
            return None
        if limit - rest < windows.MIN_TOKENS:
            self._reject(item, whole)
        return limit - rest

    def _lengths(self, texts: Sequence[str], *, special: bool = False) -> list[int]:
        encoded = self.tokenizer(list(texts), add_special_tokens=special, verbose=False)
        appended = len(_added_around(self.tokenizer).after) if special else 0
        return [len(ids) - appended for ids in encoded.input_ids]

    def _ids(self, text: str) -> list[int]:
        if self.chat is not None:
            plain: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            return plain
        ids: list[int] = self.tokenizer(text, verbose=False).input_ids
        return ids[: len(ids) - len(_added_around(self.tokenizer).after)]

    def _check_length(self, item: Item, length: int, what: str = "") -> None:
        if self.max_length is not None and length > self.max_length:
            self._reject(item, length, what)

    def _reject(self, item: Item, length: int, what: str = "") -> NoReturn:
        raise OptionError(
            "model",
            self.tokenizer.name_or_path,
            f"the context length is {self.max_length} tokens, but item {item.id} in {item.language} has {length}{what}",
        )


@dataclass(frozen=True, slots=True)
class AddedTokens:
    """Ids of the special tokens that a tokenizer adds before and after a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@functools.lru_cache(maxsize=4)
def added_tokens(tokenizer: PreTrainedTokenizerBase) -> AddedTokens | None:
    """Return the tokens that the tokenizer adds around a text; None if it changes the text's own tokens."""
    text = "a"
    plain = tokenizer(text, add_special_tokens=False).input_ids
    whole = tokenizer(text).input_ids
    if not plain or (len(plain) > 1 and tokenizer.eos_token_id in plain):
        return None
    for start in range(len(whole) - len(plain) + 1):
        end = start + len(plain)
        if whole[start:end] == plain:
            return AddedTokens(tuple(whole[:start]), tuple(whole[end:]))
    return None


def _added_around(tokenizer: PreTrainedTokenizerBase) -> AddedTokens:
    return added_tokens(tokenizer) or AddedTokens((), ())  # `check_tokenizer` refuses others


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids that decoding with `skip_special_tokens` omits.

    They are more than the ids with a role such as BOS: a tokenizer's file may flag others as special, such as SmolLM2's
    `<repo_name>`, which its `all_special_ids` does not list.
    """
    flagged = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return frozenset(flagged.union(tokenizer.all_special_ids))


@functools.lru_cache(maxsize=4)
def line_ends(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of all tokens that contain a line break, and of the end-of-text token."""
    marks = ("\n", "Ċ", "<0x0A>")  # plain, in byte-level BPE, and as a SentencePiece byte fallback
    candidates = [token for piece, token in tokenizer.get_vocab().items() if any(mark in piece for mark in marks)]
    return frozenset({tokenizer.eos_token_id, *(token for token in candidates if "\n" in tokenizer.decode([token]))})


def word_tokens(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text, preceded by the BOS token; without one, by EOS, else by PAD."""
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    first = next(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) if i is not None)
    return [first, *ids]
