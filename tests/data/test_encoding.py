"""Encoding and batching: only answer tokens have labels."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import torch

from whichlora.data.batching import IGNORED, by_length, collate, in_order, sorted_by_ids
from whichlora.data.encoding import Encoded, Encoder, line_ends
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError
from whichlora.models.loading import load_tokenizer, locate
from whichlora.models.packing import pack

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")
CASES = [(task, language) for task in (NLI, QA) for language in ("en", "sw", "hi", "te")]
each_case = pytest.mark.parametrize(("task", "language"), CASES, ids=[f"{t.name} {language}" for t, language in CASES])


@pytest.fixture(scope="module", params=["tiny_model", "byte_model"])
def tokenizer(request):
    return load_tokenizer(locate(request.getfixturevalue(request.param)))


@each_case
def test_an_example_is_the_joint_text_and_the_end(tokenizer, task, language):
    encoder = Encoder(task, tokenizer)
    for item in task.load(language, "validation")[:20]:
        example = encoder.example(item)
        joint = tokenizer(task.prompt(item) + task.answer(item)).input_ids
        assert example.prompt + example.answer == [*joint, tokenizer.eos_token_id]
        assert tokenizer.decode(example.prompt) == task.prompt(item)
        assert tokenizer.decode(example.answer[:-1]) == task.answer(item)
        assert len(example) == len(joint) + 1


@each_case
def test_a_continuation_is_the_answer_of_the_example(tokenizer, task, language):
    encoder = Encoder(task, tokenizer)
    item = task.load(language, "validation")[0]
    answer = task.answer(item)
    assert encoder.continuation(item, answer) == encoder.example(item).answer[:-1]


def test_a_token_across_the_border_never_replaces_one_of_the_prompt(tiny_model):
    """ "Label:" followed by a text that merges with its last token must still be written after the prompt's tokens."""
    tokenizer = load_tokenizer(locate(tiny_model))
    item = NLI.load("en", "test")[0]

    class Cut(type(NLI)):
        def prompt(self, item):
            return super().prompt(item).removesuffix("bel:")

    encoder = Encoder(Cut(), tokenizer)
    prompt = encoder.prompt(item)
    joint = tokenizer(Cut().prompt(item) + "bel:").input_ids
    assert joint[: len(prompt)] != prompt, "this tokenizer does not merge here"
    continuation = encoder.continuation(item, "bel:")
    assert tokenizer.decode(prompt + continuation) == Cut().prompt(item) + "bel:"


def test_a_prompt_beyond_the_context_is_an_error_that_names_item_and_limit(tokenizer):
    item = NLI.load("sw", "test")[3]
    length = len(Encoder(NLI, tokenizer).prompt(item))
    assert len(Encoder(NLI, tokenizer, max_length=length + 1).prompt(item)) == length
    with pytest.raises(OptionError) as caught:
        Encoder(NLI, tokenizer, max_length=length).prompt(item)
    assert str(caught.value).startswith(f"model={tokenizer.name_or_path}: ")
    assert all(word in str(caught.value) for word in (str(length), item.id, "sw"))


def test_batches_are_padded_on_the_right_and_learn_answers_and_ends_only(tokenizer):
    encoder = Encoder(QA, tokenizer)
    examples = [encoder.example(item) for item in QA.load("sw", "validation")[:9]]
    pad = tokenizer.pad_token_id
    assert pad == tokenizer.eos_token_id, "the hard case: what pads is also learnt"
    batch = collate(examples, pad)
    assert batch["input_ids"].shape == batch["labels"].shape == (9, max(map(len, examples)))
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.long
    for example, ids, labels in zip(examples, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        padding = len(ids) - len(example)
        assert ids == example.prompt + example.answer + [pad] * padding
        assert labels == [IGNORED] * len(example.prompt) + example.answer + [IGNORED] * padding
        assert labels[len(example) - 1] == tokenizer.eos_token_id


def test_a_batch_of_one_has_no_padding():
    batch = collate([Encoded([5, 6], [7, 2])], pad=2)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7, 2]]


@pytest.mark.parametrize(("max_tokens", "max_items"), [(100, 4), (64, 100), (10**9, 7), (10**9, 1), (1, 5)])
def test_batches_by_length_hold_each_position_once_within_the_limits(max_tokens, max_items):
    rng = random.Random(0)
    lengths = [rng.randint(1, 60) for _ in range(101)]
    batches = list(by_length(lengths, max_tokens=max_tokens, max_items=max_items))
    assert sorted(position for batch in batches for position in batch) == list(range(101))
    for batch in batches:
        assert len(batch) <= max_items
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= max_tokens or len(batch) == 1  # what is too long goes alone
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    assert all(min(lengths[i] for i in a) >= max(lengths[i] for i in b) for a, b in pairwise(batches))


def test_a_line_ends_at_every_token_that_holds_a_line_break(tiny_model, byte_model):
    for name in (tiny_model, byte_model):
        tokenizer = load_tokenizer(locate(name))
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        breaks = {token for token, piece in enumerate(pieces) if "\n" in piece}
        assert breaks
        assert line_ends(tokenizer) == breaks | {tokenizer.eos_token_id}


def test_batches_of_neighbours_add_lengths_up():
    lengths = [5, 4, 1, 12, 1, 1, 1, 1]
    assert list(in_order(lengths, max_tokens=10, max_items=3)) == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert list(in_order([], max_tokens=10, max_items=3)) == []


def test_sorted_neighbours_share_what_they_begin_with():
    examples = [Encoded([5, 7, 1], [2]), Encoded([5, 6, 7, 1], [3]), Encoded([5, 6, 7, 1], [2]), Encoded([5, 6], [2])]
    order, own = sorted_by_ids(examples)
    assert order == [3, 2, 1, 0]
    assert own == [3, 4, 2, 3]
    assert sum(own) == pack([examples[i] for i in order])["input_ids"].shape[1]
    assert sorted_by_ids([]) == ([], [])


def test_batches_by_length_are_full():
    batches = list(by_length([10] * 20, max_tokens=40, max_items=100))
    assert [len(batch) for batch in batches] == [4] * 5
    assert list(by_length([], max_tokens=40, max_items=4)) == []
