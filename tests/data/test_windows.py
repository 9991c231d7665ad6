"""Long contexts: windows cover them, hold the answer in training, and never see it in scoring."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from whichlora.data import windows
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.data.tasks.items import QaItem
from whichlora.errors import OptionError
from whichlora.evaluation.generation import generate
from whichlora.evaluation.scores import score
from whichlora.evaluation.scoring_methods import Generation
from whichlora.models.loading import load_model, load_tokenizer, locate

QA = get_task("tydiqa")
SHORT = get_task("atlas-qa").load("en", "test")[:3]


def long_item(number: int, *, words: int = 500) -> QaItem:
    """Return an item of several windows whose answer occurs once, at a random position."""
    rng = random.Random(number)
    texts = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 9))) for _ in range(words)]
    place = rng.randrange(words)
    texts[place : place + 2] = ["Nai", "robi"]
    context = " ".join(texts)
    start = context.index("Nai robi")
    return QaItem(number, f"long-{number}", "en", "en", context, "Who?", ("Nai robi",), start)


LONG = [long_item(number) for number in range(6)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For a model this small, threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["tiny_model", "byte_model"])
def encoder(request):
    source = locate(request.getfixturevalue(request.param))
    return Encoder(QA, load_tokenizer(source), max_length=2048)


@pytest.fixture(scope="module")
def tiny(tiny_model):
    source = locate(tiny_model)
    model = load_model(source, precision="fp32", quantization="none").eval()
    return model, Encoder(QA, load_tokenizer(source), max_length=2048)


def words(texts) -> list[int]:
    return [len(text.split()) for text in texts]


@pytest.mark.parametrize(("length", "budget"), [(1000, 100), (101, 100), (100, 100), (333, 64), (5, 1), (1, 10)])
def test_windows_cover_the_context_overlap_by_a_quarter_and_end_with_it(length, budget):
    item = replace(LONG[0], context=" ".join(f"w{i}" for i in range(length)))
    parts = [window.context.split() for window in windows.split(item, words, budget)]
    starts = [int(part[0][1:]) for part in parts]
    for part, start in zip(parts, starts, strict=True):
        assert part == [f"w{i}" for i in range(start, start + len(part))]
    assert starts[0] == 0
    assert parts[-1][-1] == f"w{length - 1}"
    assert all(len(part) == min(budget, length) for part in parts)
    assert all(b - a == round(0.75 * budget + 0.4) for a, b in list(pairwise(starts))[:-1])
    assert all(a < b <= a + budget for a, b in pairwise(starts))


def test_a_context_without_spaces_is_cut_too():
    item = replace(LONG[0], context="å" * 1000)
    parts = [w.context for w in windows.split(item, lambda texts: [len(t) for t in texts], 100)]
    assert len(parts) > 10
    assert all(len(part) <= 100 for part in parts)
    assert sum(map(len, parts)) >= 1000


@pytest.mark.parametrize("context", ["a b  \n ", "  a b", "a\n\nb", "a"])
def test_spaces_around_windows_are_dropped_and_none_is_empty(context):
    parts = [w.context for w in windows.split(replace(LONG[0], context=context), words, 1)]
    assert parts == context.split()


def test_prompts_of_windows_are_as_long_as_allowed(encoder):
    for item in LONG:
        lengths = [len(encoder.prompt(window)) for window in encoder.windows(item)]
        assert len(lengths) > 1
        assert max(lengths) <= windows.PROMPT_TOKENS + 1  # a token may span the border
        assert max(lengths) > windows.PROMPT_TOKENS - 40


@pytest.mark.parametrize("max_length", [400, 700])
def test_windows_leave_room_for_the_answer_in_the_models_context(encoder, max_length):
    encoder = Encoder(QA, encoder.tokenizer, max_length=max_length)
    for item in LONG[:3]:
        lengths = [len(encoder.prompt(window)) for window in encoder.windows(item)]
        assert max(lengths) <= max_length - QA.answer_tokens + 1
        assert len(encoder.example(item)) <= max_length


def test_a_model_without_room_for_a_window_is_refused(encoder):
    encoder = Encoder(QA, encoder.tokenizer, max_length=170)
    for call in (encoder.windows, encoder.example):
        with pytest.raises(
            OptionError, match=r"^model=.*: the context length is 170 tokens, but item long-0 in en has \d{4}"
        ):
            call(LONG[0])


@pytest.mark.parametrize("task", [get_task("atlas-qa"), QA], ids=lambda task: task.name)
def test_what_fits_into_one_prompt_goes_as_it_is(encoder, task, monkeypatch):
    encoder = Encoder(task, encoder.tokenizer, max_length=2048)
    items = [item for code in ("en", "te") for item in get_task("atlas-qa").load(code, "test")[:5]]
    before = [(encoder.windows(item), encoder.example(item)) for item in items]
    assert all(parts == [item] and parts[0] is item for item, (parts, _) in zip(items, before, strict=True))
    monkeypatch.setattr(windows, "PROMPT_TOKENS", 10**9)
    assert [encoder.example(item) for item in items] == [example for _, example in before]
    for item, (_, example) in zip(items, before, strict=True):
        text = task.prompt(item) + task.answer(item)
        assert example.prompt + example.answer == [*encoder.tokenizer(text).input_ids, encoder.tokenizer.eos_token_id]


def test_in_training_the_window_holds_the_answer(encoder):
    for item in LONG:
        text = encoder.tokenizer.decode(encoder.example(item).prompt)
        assert item.answers[0] in text
        assert item.context not in text
        assert encoder.tokenizer.decode(encoder.example(item).answer[:-1]) == " Nai robi"


def test_the_training_window_is_one_of_those_of_scoring_and_keeps_the_place_of_the_answer():
    for item in LONG:
        grid = [window.context for window in windows.split(item, words, 200)]
        window = windows.around_answer(item, words, 200)
        assert window.context in grid
        assert window.context[window.answer_start :].startswith("Nai robi")
        assert (window.id, window.question) == (item.id, item.question)
        sides = [min(c.index("Nai"), len(c) - c.index("robi") - 4) for c in grid if "Nai robi" in c]
        assert min(window.answer_start, len(window.context) - window.answer_start - 8) == max(sides)


def test_an_answer_too_long_for_any_window_begins_its_own():
    item = LONG[0]
    long_answer = item.context[item.context.index(" ", 300) + 1 : 1500]
    item = replace(item, answers=(long_answer,), answer_start=item.context.index(long_answer))
    window = windows.around_answer(item, words, 50)
    assert long_answer.startswith(window.context)
    assert window.answer_start == 0
    assert len(window.context.split()) == 50


def test_windows_to_be_answered_have_no_answers(encoder):
    for item in LONG:
        assert all((window.answers, window.answer_start) == ((), -1) for window in encoder.windows(item))


def test_the_right_answer_plays_no_part_in_what_is_predicted(tiny):
    items = [*SHORT, *LONG[:2]]
    other = [replace(item, answers=("Mombasa", "no such words"), answer_start=0) for item in items]
    one, two = (score(*tiny, chosen, scoring=Generation(), name="test") for chosen in (items, other))
    assert one.predicted == two.predicted
    assert one.gold != two.gold


@torch.inference_mode()
def answer_of(model, encoder, item: QaItem) -> tuple[str, float]:
    """Return what the model writes after one prompt, and the mean log-likelihood of its tokens, without batches."""
    tokenizer = encoder.tokenizer
    prompt = tokenizer(QA.prompt(item)).input_ids
    ids = torch.tensor([prompt])
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=QA.answer_tokens,
        pad_token_id=tokenizer.pad_token_id,
    )
    text = tokenizer.decode(written[0, len(prompt) :], skip_special_tokens=True).split("\n")[0].strip()
    answer = encoder.continuation(item, f" {text}")
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    logs = [logits[len(prompt) + k - 1, token].item() for k, token in enumerate(answer)]
    return text, sum(logs) / len(logs)


@torch.inference_mode()
def test_the_answer_is_that_of_the_most_likely_window(tiny):
    items = [SHORT[0], LONG[0], SHORT[1], *LONG[1:4]]
    written = generate(*tiny, items, name="test")
    places = []
    for item, text in zip(items, written, strict=True):
        answers = [answer_of(*tiny, window) for window in tiny[1].windows(item)]
        places.append(max(range(len(answers)), key=lambda k: answers[k][1]))
        assert text == answers[places[-1]][0]
        assert len(answers) == 1 or len({text for text, _ in answers}) > 1
    assert len(set(places)) > 1, "always the first window: this would pass without choosing"


@torch.inference_mode()
def test_short_items_are_answered_alike_with_long_ones_beside_them(tiny):
    alone = generate(*tiny, SHORT, name="test")
    assert generate(*tiny, [LONG[0], *SHORT], name="test")[1:] == alone


def test_an_empty_answer_is_taken_only_where_every_window_has_one(tiny, monkeypatch):
    from whichlora.evaluation import generation

    model, encoder = tiny
    n = len(encoder.windows(LONG[0]))
    for texts, best in ((["", "x", *[""] * (n - 2)], "x"), ([""] * n, "")):
        monkeypatch.setattr(generation, "_generate_each", lambda *_, texts=texts, **__: texts)
        with torch.inference_mode():
            assert generate(model, encoder, LONG[:1], name="test") == [best]


@torch.inference_mode()
@pytest.mark.slow
def test_many_windows_are_announced_before_they_are_scored(tiny, capsys):
    model, scoring = tiny
    item = get_task("atlas-qa").load("hi", "test")[0]
    long = replace(item, context=" ".join([item.context] * (20_000 // len(item.context))), id="long")
    task = type("Short", (type(QA),), {"answer_tokens": 2})()
    scoring = Encoder(task, scoring.tokenizer, max_length=2048)
    windows = len(scoring.windows(long))
    assert windows > 33
    for _ in range(2):
        assert len(generate(model, scoring, [long, item], name="test hi")) == 2
    told = re.findall(
        rf"^test hi: 2 items have {windows + 1} windows of at most 10\d\d tokens; scoring takes about \d+ seconds\.$",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    assert len(told) == 1, "before the first scoring, and once"
    generate(model, scoring, [item], name="test hi short")
    assert "windows" not in capsys.readouterr().err
