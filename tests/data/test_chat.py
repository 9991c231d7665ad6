"""Prompts and answers in the form of chat templates, token by token."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_models import CHATML, FAMILIES, LLAMA3, MISTRAL, save_chat_model
from runs import plan_of

from whichlora.data.chat import ChatTemplate, transcript
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task, task_class
from whichlora.data.tasks.items import FieldsItem
from whichlora.errors import OptionError
from whichlora.models.instruct import chat_template
from whichlora.models.loading import load_tokenizer, locate

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request, tmp_path_factory) -> Any:
    """A family with the folder of its tiny model."""
    folder = tmp_path_factory.mktemp("chat") / request.param
    return FAMILIES[request.param], str(save_chat_model(folder, FAMILIES[request.param]))


def encoder_of(folder: str, task: Any = NLI, option: str | None = None, **options: Any) -> Encoder:
    source = locate(folder)
    tokenizer = load_tokenizer(source)
    return Encoder(task, tokenizer, chat=chat_template(task, option, source, tokenizer), **options)


@pytest.mark.parametrize("task", [NLI, QA], ids=["nli", "qa"])
def test_an_example_is_the_conversation_and_labels_are_on_the_answer_alone(family, task):
    form, folder = family
    encoder = encoder_of(folder, task)
    tokenizer = encoder.tokenizer
    for item in [*task.load("en", "validation")[:5], *task.load("hi", "validation")[:5]]:
        example, answer = encoder.example(item), task.answer(item).strip()
        assert tokenizer.decode(example.prompt) == (form.before + task.prompt(item) + form.between).rstrip(" ")
        assert tokenizer.decode(example.answer).lstrip(" ") == answer + form.after
        text = form.before + task.prompt(item) + form.between + answer + form.after
        assert example.prompt + example.answer == tokenizer(text, add_special_tokens=False).input_ids
        assert example.answer[-1] == encoder.chat.end_token == tokenizer.convert_tokens_to_ids(form.after)
        if form.bos:  # which the tokenizer would put before the text once more
            assert (example.prompt + example.answer).count(tokenizer.convert_tokens_to_ids(form.bos)) == 1


def test_prompt_and_answer_are_the_whole_conversation_rendered_at_once(family):
    form, folder = family
    encoder = encoder_of(folder)
    for item in NLI.load("sw", "validation")[:10]:
        turns = [*NLI.turns(item), {"role": "assistant", "content": NLI.answer(item).strip()}]
        whole = encoder.tokenizer.apply_chat_template(
            turns, chat_template=form.template.replace("strftime_now", "unknown"), return_dict=False
        )
        example = encoder.example(item)
        tokens = example.prompt + example.answer
        assert whole[: len(tokens)] == tokens
        assert encoder.tokenizer.decode(whole[len(tokens) :]) in ("", "\n")


def test_earlier_turns_stay_as_they_are(family):
    form, folder = family
    encoder = encoder_of(folder)
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "Two?"},
    ]
    text = encoder.chat.prompt(turns)
    places = [text.index(turn["content"]) for turn in turns]
    assert places == sorted(places)
    assert text.endswith(form.between.rstrip(" "))
    assert text.count("<think>") == form.between.count("<think>"), "earlier turns have no empty think block"


def test_prompts_do_not_depend_on_the_day(family):
    _, folder = family
    tokenizer = load_tokenizer(locate(folder))
    template = ChatTemplate(tokenizer, LLAMA3 if "llama3" in folder else CHATML + "{{ strftime_now('%Y-%m-%d %B') }}")
    text = template.prompt([{"role": "user", "content": "x"}])
    assert "26 Jul 2024" in text or text.endswith("2024-07-26 July")


def test_auto_is_for_instruct_models_alone(family, tmp_path):
    """A base model may come with a template too, but its texts do not end with the end of a turn."""
    form, folder = family
    assert encoder_of(folder).chat.text == form.template
    assert encoder_of(folder, option="none").chat is None
    base = shutil.copytree(folder, tmp_path / "base")
    path = base / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": "<unk>"}))
    (base / "generation_config.json").unlink()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "eos_token_id": 0}))
    if form.template == MISTRAL:  # which ends turns with any end-of-text token
        assert encoder_of(str(base)).chat.end == "<unk>"
        return
    assert encoder_of(str(base)).chat is None
    (base / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [load_tokenizer(locate(folder)).convert_tokens_to_ids(form.after)]})
    )
    load_tokenizer.cache_clear()
    assert encoder_of(str(base)).chat is not None


def test_windows_and_room_are_those_of_the_conversation(family):
    _, folder = family
    encoder = encoder_of(folder, QA, max_length=400)
    item = QA.load("en", "test")[0]
    item = replace(item, context=" ".join([item.context] * 8))
    windows = encoder.windows(item)
    assert len(windows) > 2
    assert max(len(encoder.prompt(window)) for window in windows) <= 400 - QA.answer_tokens
    assert len(encoder.example(item)) <= 400
    nli = NLI.load("en", "test")[0]
    room = len(encoder_of(folder).prompt(nli)) + max(map(len, encoder_of(folder).labels(nli)))
    encoder_of(folder, max_length=room).check_room(nli, generates=False)
    with pytest.raises(OptionError, match="context length"):
        encoder_of(folder, max_length=room - 1).check_room(nli, generates=False)


def test_the_template_is_part_of_the_fingerprint_by_its_text(tmp_path):
    folder = str(save_chat_model(tmp_path / "model", FAMILIES["chatml"]))
    auto, none = plan_of(folder, variant="lora"), plan_of(folder, variant="lora", chat_template="none")
    (tmp_path / "same.jinja").write_text(CHATML)
    (tmp_path / "other.jinja").write_text("{{ bos_token }}" + CHATML)
    same = plan_of(folder, variant="lora", chat_template=str(tmp_path / "same.jinja"))
    other = plan_of(folder, variant="lora", chat_template=str(tmp_path / "other.jinja"))
    assert (auto.spec.chat_template, none.spec.chat_template) == (auto.model.chat(NLI).digest, "none")
    assert same.spec == auto.spec
    plans = (auto, none, other)
    assert len({plan.spec.fingerprint for plan in plans}) == len({plan.tests["en"].digest for plan in plans}) == 3
    assert len({plan.spec.training_fingerprint for plan in plans}) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "is not a file"),
        ("{% for %}", "is no chat template for this model"),
        ("{{ messages[0]['content'] }}", "leaves out a turn"),
        ("{{ raise_exception('Nothing goes') }}", "Nothing goes"),
        (b"\xff\xfe", "it is not UTF-8"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tiny_model, tmp_path, text, reason):
    path = tmp_path / "chat.jinja"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OptionError, match=rf"^chat_template=.*{reason}"):
        plan_of(tiny_model, variant="lora", chat_template=str(path))


def test_a_models_own_template_that_is_none_is_left_out_with_a_warning(tmp_path):
    form = replace(FAMILIES["chatml"], template="{{ messages[0].content[0].text }}")
    folder = str(save_chat_model(tmp_path / "model", form))
    with pytest.warns(UserWarning, match=r"its chat template is not used, so that prompts are plain texts: leaves out"):
        assert encoder_of(folder).chat is None


def test_a_template_without_an_end_of_turn_ends_with_the_text(tiny_model, tmp_path):
    (tmp_path / "chat.jinja").write_text(
        "{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}"
        "### assistant:{% endif %}"
    )
    encoder = encoder_of(tiny_model, option=str(tmp_path / "chat.jinja"))
    item = NLI.load("en", "test")[0]
    example = encoder.example(item)
    assert (encoder.chat.separator, encoder.chat.end) == (" ", "")
    assert encoder.tokenizer.decode(example.answer) == f"{NLI.answer(item)}</s>"


def declared(folder: Path, *lines: str) -> type:
    head = ["task: talk", "kind: text", "languages: [de]", "data: {train: a.csv, test: b.csv}"]
    (folder / "talk.yaml").write_text(
        "\n".join([*head, "fields: {text: t, answer: a}", "prompt: '{{ text }}'", *lines])
    )
    return task_class(str(folder / "talk.yaml"))


def test_a_declaration_decides_unless_the_option_does(tmp_path):
    folder = str(save_chat_model(tmp_path / "model", FAMILIES["chatml"]))
    (tmp_path / "mine.jinja").write_text(CHATML + " ")
    mine = declared(tmp_path, "chat_template: mine.jinja")
    assert encoder_of(folder, mine()).chat.text == CHATML + " "
    assert encoder_of(folder, mine(), "none").chat is None
    assert encoder_of(folder, declared(tmp_path, "chat_template: none")()).chat is None
    assert encoder_of(folder, declared(tmp_path)()).chat.text == CHATML
    assert declared(tmp_path, "chat_template: none").prompt_version == declared(tmp_path).prompt_version
    with pytest.raises(OptionError, match=r"line 7: chat_template absent.jinja is not a file"):
        declared(tmp_path, "chat_template: absent.jinja")


def test_a_conversation_is_an_item(tmp_path):
    folder = str(save_chat_model(tmp_path / "model", FAMILIES["gemma3"]))
    turns = [{"role": role, "content": f"{role} {n}"} for n, role in enumerate(("user", "assistant", "user"))]
    item = FieldsItem(0, "a", "de", "", fields=(("messages", json.dumps(turns)),), answers=("two\n\nlines \n",))
    task = declared(tmp_path)()
    encoder = encoder_of(folder, task)
    assert encoder.prompt_text(item) == (
        "<bos><start_of_turn>user\nuser 0<end_of_turn>\n<start_of_turn>model\nassistant 1<end_of_turn>\n"
        "<start_of_turn>user\nuser 2<end_of_turn>\n<start_of_turn>model\n"
    )
    assert encoder.tokenizer.decode(encoder.example(item).answer) == "two\n\nlines<end_of_turn>"
    assert task.prompt(item) == transcript(turns) == "User: user 0\nAssistant: assistant 1\nUser: user 2\nAssistant:"
    twice = replace(item, fields=(("messages", json.dumps([turns[0], turns[0]])),))
    with pytest.raises(OptionError, match=r"cannot render item a in de \(Conversation roles must alternate"):
        encoder.prompt(twice)
