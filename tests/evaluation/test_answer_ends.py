"""Where answers end, in generation and in the likelihood of labels; and both in the form of a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chat_models import FAMILIES, save_chat_model
from runs import plan_of, run_of

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task, task_class
from whichlora.data.tasks.items import FieldsItem
from whichlora.evaluation import likelihood
from whichlora.evaluation.answer_ends import cut, end_tokens, stopping
from whichlora.evaluation.generation import generate, greedy_continuations
from whichlora.evaluation.scoring_methods import _label_in
from whichlora.models.instruct import chat_template
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.testing import save_tiny_model

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")
ITEMS = [*QA.load("en", "test")[:4], *QA.load("hi", "test")[:4]]


@pytest.fixture(scope="module", params=["llama3", "qwen3", "mistral"])
def chat_model(request, tmp_path_factory) -> tuple[Any, str]:
    folder = tmp_path_factory.mktemp("chat") / request.param
    save_chat_model(folder, FAMILIES[request.param], tie_word_embeddings=False)
    source = locate(str(folder))
    return load_model(source, precision="fp32", quantization="none").eval(), str(folder)


def encoder_of(folder: str, task: Any) -> Encoder:
    source = locate(folder)
    tokenizer = load_tokenizer(source)
    return Encoder(task, tokenizer, chat=chat_template(task, None, source, tokenizer))


@torch.inference_mode()
def probabilities(model: Any, encoder: Encoder, items: Any) -> np.ndarray:
    return likelihood.label_probabilities(model, encoder, items, name="test")


@torch.inference_mode()
def log_likelihood(model: Any, prompt: list[int], answer: list[int]) -> float:
    logs = model(input_ids=torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
    return sum(logs[len(prompt) + k - 1, token].item() for k, token in enumerate(answer))


@torch.inference_mode()
def greedy(model: Any, prompt: list[int], ends: set[int], limit: int) -> list[int]:
    ids = list(prompt)
    while len(ids) < len(prompt) + limit:
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] in ends:
            break
    return ids[len(prompt) :]


def test_the_likelihood_of_labels_in_a_conversation_is_that_of_their_tokens(chat_model):
    model, folder = chat_model
    form, encoder = FAMILIES[Path(folder).name], encoder_of(folder, NLI)
    items = [*NLI.load("en", "test")[:5], *NLI.load("sw", "test")[:3]]
    expected = []
    for item in items:
        prompt = encoder.prompt(item)
        text = form.before + NLI.prompt(item) + form.between
        labels = [
            encoder.tokenizer(text + word, add_special_tokens=False).input_ids[len(prompt) :] for word in NLI.labels
        ]
        if len({ids[0] for ids in labels}) == len(labels):
            labels = [ids[:1] for ids in labels]
        expected.append(
            torch.tensor([log_likelihood(model, prompt, ids) for ids in labels]).double().softmax(0).numpy()
        )
    assert np.allclose(probabilities(model, encoder, items), expected, atol=1e-5)


def test_an_answer_in_a_conversation_ends_with_the_turn(chat_model):
    """The model is changed to end its turn after some tokens of one item's answer."""
    model, folder = chat_model
    encoder = encoder_of(folder, QA)
    end, prompt = encoder.chat.end_token, encoder.prompt(ITEMS[0])
    head = model.get_output_embeddings().weight
    before = head[end].clone()
    continued = greedy(model, prompt, set(), 4)
    try:
        with torch.no_grad():
            state = model.model(input_ids=torch.tensor([prompt + continued[:3]])).last_hidden_state[0, -1]
            head[end] = 1000 * state / state.norm()
        ends = {end, *end_tokens(model, encoder.tokenizer)}
        answers = [greedy(model, encoder.prompt(item), ends, QA.answer_tokens) for item in ITEMS]
        assert answers[0][-1] == end
        assert len(answers[0]) <= 4
        expected = [cut(encoder.tokenizer.decode(ids, skip_special_tokens=True), "\n") for ids in answers]
        assert generate(model, encoder, ITEMS, name="test") == expected
    finally:
        with torch.no_grad():
            head[end] = before


@pytest.mark.slow
def test_a_run_in_the_form_of_a_template_trains_scores_and_reloads(store, tmp_path):
    folder = str(save_chat_model(tmp_path / "model", FAMILIES["qwen3"]))
    for task in ("atlas-nli", "atlas-qa"):
        plan = plan_of(folder, variant="lora", task=task)
        assert plan.spec.chat_template == plan.model.chat(plan.task).digest
        result = run_of(plan)
        assert 0 <= result.metrics["test/tl/f1"] <= 1
        assert run_of(plan).run_id == result.run_id
        assert run_of(plan_of(folder, variant="lora", task=task, chat_template="none")).run_id != result.run_id


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Any, Encoder]:
    folder = str(save_tiny_model(tmp_path_factory.mktemp("models") / "plain", merges=False))
    return load_model(locate(folder), precision="fp32", quantization="none").eval(), encoder_of(folder, QA)


def ending(until: str, tokens: int = 24) -> Any:
    return type("Ending", (type(QA),), {"until": until, "answer_tokens": tokens})()


@pytest.mark.parametrize("until", ["", "\n", "\n\n", "e", "an", "\n- ", "क", "...", " ", "\u00e9"])
def test_a_generated_answer_is_cut_at_the_first_occurrence(tiny, until):
    model, encoder = tiny
    whole = generate(model, Encoder(ending("", 24), encoder.tokenizer), ITEMS, name="test")
    full = [
        encoder.tokenizer.decode(greedy(model, encoder.prompt(item), {encoder.tokenizer.eos_token_id}, 24), True)
        for item in ITEMS
    ]
    assert whole == [text.strip() for text in full]
    expected = [(text.partition(until)[0] if until else text).strip() for text in full]
    assert generate(model, Encoder(ending(until), encoder.tokenizer), ITEMS, name="test") == expected


def test_generation_stops_where_all_answers_have_the_text(tiny):
    model, encoder = tiny
    prompt = torch.tensor([encoder.prompt(ITEMS[0])])
    start = prompt.shape[1]
    whole = greedy_continuations(model, prompt, torch.ones_like(prompt), 2, new_tokens=24, ends=())
    text = encoder.tokenizer.decode(whole[0, start:])
    until = text[4:7]
    stop = stopping(Encoder(ending(until), encoder.tokenizer), start)
    short = greedy_continuations(model, prompt, torch.ones_like(prompt), 2, new_tokens=24, ends=(), stop=stop)
    assert short.shape[1] < whole.shape[1]
    assert whole[0, : short.shape[1]].tolist() == short[0].tolist()
    assert until in encoder.tokenizer.decode(short[0, start:])
    assert until not in encoder.tokenizer.decode(short[0, start:-1])
    assert stopping(Encoder(ending("\n"), encoder.tokenizer), start) == []


def choice(folder: Path, labels: str) -> Any:
    (folder / "marks.yaml").write_text(
        "task: marks\nkind: choice\nlanguages: [de]\ndata: {train: a.csv, test: b.csv}\n"
        f"fields: {{text: t, answer: a}}\nprompt: 'Note: {{{{ text }}}}'\nlabels: {labels}\n"
    )
    return task_class(str(folder / "marks.yaml"))()


def marks(*texts: str) -> list[FieldsItem]:
    return [FieldsItem(i, str(i), "de", "", fields=(("text", text),), answers=("1",)) for i, text in enumerate(texts)]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("labels", ["['1', '10', '100']", "[gut, gut gemacht, schlecht]", "[ja, nein]"])
def test_a_label_that_begins_another_is_scored_with_the_end_of_the_answer(tmp_path, labels, chat):
    if chat:
        folder = save_chat_model(tmp_path / "model", FAMILIES["llama3"], merges=False)
    else:
        folder = save_tiny_model(tmp_path / "model", merges=False)
    model, task = (
        load_model(locate(str(folder)), precision="fp32", quantization="none").eval(),
        choice(tmp_path, labels),
    )
    encoder = encoder_of(str(folder), task)
    items = marks("nett", "na ja.", "schön", "1", "x 10")
    tokenizer, expected = encoder.tokenizer, []
    end = [encoder.chat.end_token if chat else tokenizer.eos_token_id]
    for item in items:
        prompt, space = encoder.prompt(item), "" if chat else " "
        ids = [tokenizer(space + word, add_special_tokens=False).input_ids + end for word in task.label_words(item)]
        if labels == "[ja, nein]":  # none begins another, and the first bytes of " ja" and " nein" are the same
            ids = [tokens[:1] for tokens in ids] if chat else [tokens[:-1] for tokens in ids]
        expected.append(torch.tensor([log_likelihood(model, prompt, i) for i in ids]).double().softmax(0).numpy())
    assert np.allclose(probabilities(model, encoder, items), expected, atol=1e-5)


def test_items_whose_prompts_end_differently_may_have_other_label_tokens(tiny, tmp_path):
    model, task = tiny[0], choice(tmp_path, "[ja, nein]")
    encoder = Encoder(task, tiny[1].tokenizer)
    items = marks("a", "b:", "।", "a")
    together = probabilities(model, encoder, items)
    alone = np.concatenate([probabilities(model, encoder, [item]) for item in items])
    assert np.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1", "1"),
        ("10", "10"),
        (" 10.", "10"),
        ("1.", "1"),
        ("11", None),
        ("100 points", None),
        ("gut", "gut"),
        ("Gut gemacht!", "gut gemacht"),
        ("gut so", "gut"),
        ("", None),
        ("ungut", None),
    ],
)
def test_the_longest_label_counts(tmp_path, text, label):
    task = choice(tmp_path, "['1', '10', gut, gut gemacht]")
    assert _label_in(text, task, marks("x")[0]) == label


def test_an_answer_of_several_lines_is_trained_as_it_can_be_generated(tmp_path):
    def answer(kind: str, more: str = "") -> str:
        (tmp_path / "t.yaml").write_text(
            f"task: t\nkind: {kind}\nlanguages: [de]\ndata: {{train: a.csv, test: b.csv}}\n"
            f"fields: {{context: c, question: q, answers: a, answer: b}}\nprompt: x\n{more}"
        )
        return task_class(str(tmp_path / "t.yaml"))().answer(FieldsItem(0, "", "de", "", (), ("a  b\n c",)))

    assert answer("text") == " a  b\n c"
    assert answer("span") == answer("text", 'answer: {until: "\\n"}') == " a b c"
    assert answer("span", 'answer: {until: ""}') == " a  b\n c"


def test_answers_of_declared_tasks_end_as_declared(tmp_path):
    def until(kind: str, answer: str = "") -> str:
        fields = "{context: c, question: q, answers: a}" if kind == "span" else "{text: t, answer: a}"
        (tmp_path / "t.yaml").write_text(
            f"task: t\nkind: {kind}\nlanguages: [de]\ndata: {{train: a.csv, test: b.csv}}\nfields: {fields}\n"
            + ("labels: [a, b]\n" if kind == "choice" else "")
            + ("prompt: x\n" if kind != "span" else "")
            + answer
        )
        task = task_class(str(tmp_path / "t.yaml"))()
        assert task.answer_tokens == (7 if answer else task.answer_tokens)
        return task.until

    assert [until(kind) for kind in ("choice", "span", "text")] == ["\n", "\n", ""]
    assert [until(kind, 'answer: {tokens: 7, until: "##"}') for kind in ("choice", "span", "text")] == ["##"] * 3
    assert until("span", 'answer: {tokens: 7, until: ""}') == ""
    assert (QA.until, NLI.until) == ("\n", "\n")
