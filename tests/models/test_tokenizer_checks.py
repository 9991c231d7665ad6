"""Tokenizers that add special tokens around a text, and ids that the embedding does not have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from naive import ITEMS
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError
from whichlora.evaluation.generation import generate
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models.loading import load_model, load_tokenizer, locate

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def add_around(folder: Path, template: str) -> None:
    """Let the tokenizer add special tokens around each text; "$A" is the text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(folder / "tokenizer.json"))


def encoder(folder: Path | str, **options: Any) -> Encoder:
    return Encoder(NLI, load_tokenizer(locate(str(folder))), **options)


@pytest.mark.parametrize(
    ("template", "before"), [("$A </s>", 0), ("<s> $A </s>", 1), ("<s> $A", 1), ("$A </s> <s>", 0)]
)
def test_prompts_end_where_the_answer_begins(folder: Path, tiny_model: str, template: str, before: int) -> None:
    add_around(folder, template)
    ours, plain = encoder(folder), encoder(tiny_model)
    assert ours.tokenizer("a").input_ids != plain.tokenizer("a").input_ids
    start = [ours.tokenizer.bos_token_id] * before
    for item in ITEMS:
        assert ours.prompt(item) == [*start, *plain.prompt(item)]
        example, expected = ours.example(item), plain.example(item)
        assert example == replace(expected, prompt=[*start, *expected.prompt])
        assert ours.continuation(item, " x") == plain.continuation(item, " x")
    length = len(plain.prompt(ITEMS[0])) + before
    assert encoder(folder, max_length=length + 1).prompt(ITEMS[0])
    with pytest.raises(OptionError, match=f"has {length}$"):
        encoder(folder, max_length=length).prompt(ITEMS[0])


def test_likelihoods_and_generated_answers_are_those_without_the_appended_token(folder: Path, tiny_model: str) -> None:
    add_around(folder, "$A </s>")
    results = []
    for path in (folder, Path(tiny_model)):
        model = load_model(locate(str(path)), precision="fp32", quantization="none")
        tokenizer = load_tokenizer(locate(str(path)))
        with torch.inference_mode():
            probabilities = label_probabilities(model, Encoder(NLI, tokenizer), ITEMS, name="test")
            items = QA.load("en", "test")[:3]
            results.append((probabilities.tolist(), generate(model, Encoder(QA, tokenizer), items, name="test")))
    assert results[0] == results[1]


def test_windows_of_a_context_have_the_same_room(folder: Path, tiny_model: str) -> None:
    add_around(folder, "$A </s>")
    item = QA.load("en", "test")[0]
    item = replace(item, context=item.context * 20)
    encoders = [Encoder(QA, load_tokenizer(locate(str(path))), max_length=2048) for path in (folder, tiny_model)]
    assert encoders[0].windows(item) == encoders[1].windows(item)
    assert len(encoders[0].windows(item)) > 1


@pytest.mark.parametrize("settings", [{"add_eos_token": True}, {"add_eos_token": True, "add_bos_token": True}])
def test_a_llama_tokenizer_set_to_append_eos(tmp_path: Path, tiny_model: str, settings: dict[str, bool]) -> None:
    from transformers import LlamaTokenizer

    vocabulary = AutoTokenizer.from_pretrained(tiny_model)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "llama"))
    (folder / "tokenizer.json").unlink()
    tokens = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "▁", *map(chr, range(33, 127))])}
    LlamaTokenizer(vocab=tokens, merges=[], **settings).save_pretrained(folder)
    assert len(vocabulary) > len(tokens)
    ours = encoder(folder)
    assert ours.tokenizer("a b").input_ids[-1] == ours.tokenizer.eos_token_id
    for item in ITEMS[:3]:
        prompt = ours.prompt(item)
        assert ours.tokenizer.eos_token_id not in prompt
        assert prompt.count(ours.tokenizer.bos_token_id) == settings.get("add_bos_token", False)
        assert ours.example(item).answer.count(ours.tokenizer.eos_token_id) == 1


def test_a_t5_tokenizer_ends_no_prompt(tmp_path: Path, tiny_model: str) -> None:
    from transformers import T5Tokenizer

    folder = Path(shutil.copytree(tiny_model, tmp_path / "t5"))
    (folder / "tokenizer.json").unlink()
    pieces = [(piece, -1.0) for piece in ("<pad>", "</s>", "<unk>", "▁", *map(chr, range(33, 127)))]
    T5Tokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)
    ours = encoder(folder)
    assert ours.tokenizer("a").input_ids[-1] == ours.tokenizer.eos_token_id
    assert ours.tokenizer.eos_token_id not in ours.prompt(ITEMS[0])


def refused(folder: Path) -> str:
    with pytest.raises(OptionError) as caught:
        load_tokenizer(locate(str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_tokenizer_without_an_end_of_text_token_is_refused(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    assert "no end-of-text token" in refused(folder)


def test_a_doubled_first_token_is_refused(folder: Path) -> None:
    add_around(folder, "<s> <s> $A")
    assert "begins each text with the same special token twice: <s> <s>" in refused(folder)


@pytest.mark.parametrize("role", ["pad_token", "eos_token", "bos_token", None])
def test_tokens_outside_the_embedding_are_refused_by_name(folder: Path, role: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    if role is None:
        tokenizer.add_tokens(["[NEW]"])
    else:
        tokenizer.add_special_tokens({role: "[NEW]"})
    tokenizer.save_pretrained(folder)
    assert refused(folder).endswith(f"outside the embedding of {size} tokens: [NEW] ({size})")


def test_a_special_token_without_a_role_may_be_outside(folder: Path) -> None:
    """Gemma 3's text models have one for images."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    load_tokenizer(locate(str(folder)))


def test_truncation_and_padding_saved_with_the_tokenizer_do_nothing(folder: Path, tiny_model: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=500)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "x", "model_max_length": 8}))
    assert [encoder(folder).prompt(item) for item in ITEMS] == [encoder(tiny_model).prompt(item) for item in ITEMS]
