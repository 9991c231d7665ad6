"""Decoding is greedy whatever the model's generation config says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.evaluation.generation import end_tokens, generate
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.models.packing import families
from whichlora.probing.language.positions import PositionSelector

QA = get_task("atlas-qa")
SETTINGS: dict[str, dict[str, Any]] = {
    "penalties": {"repetition_penalty": 1.8, "no_repeat_ngram_size": 1, "encoder_repetition_penalty": 1.5},
    "sampling": {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "typical_p": 0.5},
    "refused by transformers": {"num_return_sequences": 3, "max_new_tokens": -1},
    "beams": {"num_beams": 4, "length_penalty": 3.0, "early_stopping": True, "num_return_sequences": 2},
    "lengths": {"max_length": 3, "min_length": 1000, "min_new_tokens": 5, "max_time": 0.0},
    "tokens": {"suppress_tokens": list(range(300, 600)), "begin_suppress_tokens": list(range(3, 300))},
    "forced": {"forced_bos_token_id": 9, "forced_eos_token_id": 9, "bad_words_ids": [[k] for k in range(200, 400)]},
    "ends": {"eos_token_id": list(range(3, 500)), "stop_strings": ["a", "e"], "pad_token_id": 7},
    "bias": {"sequence_bias": [[[k], -20.0] for k in range(3, 400)], "exponential_decay_length_penalty": [1, 3.0]},
    "speculation": {"prompt_lookup_num_tokens": 3, "guidance_scale": 3.0},
    "cache": {"use_cache": False, "cache_implementation": "static", "output_scores": True},
    "results": {"return_dict_in_generate": True, "output_hidden_states": True, "output_logits": True},
    "watermark": {"watermarking_config": {"bias": 9.0, "greenlist_ratio": 0.3}},
}


def answers(folder: Path) -> tuple[list[str], list[list[int]]]:
    """Return the answers of a model to three items, and the ids that the language probe reads."""
    source = locate(str(folder))
    model = load_model(source, precision="fp32", quantization="none")
    encoder = Encoder(QA, load_tokenizer(source))
    items = QA.load("en", "test")[:3]
    with torch.inference_mode():
        texts = generate(model, encoder, items, name="test")
    selector = PositionSelector(encoder, positions="generated", special_tokens="keep")
    return texts, selector.select(items[:1], model)[0]


@pytest.fixture(scope="module")
def greedy(tiny_model: str) -> tuple[list[str], list[list[int]]]:
    return answers(Path(tiny_model))


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_of_the_model_do_not_change_answers(
    tiny_model: str, tmp_path: Path, settings: str, greedy: tuple[list[str], list[list[int]]]
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | SETTINGS[settings]))
    assert answers(folder) == greedy
    assert any(greedy[0])


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"temperature": "hot"}'])
def test_a_damaged_or_missing_generation_config_does_not_matter(
    tiny_model: str, tmp_path: Path, content: str | None, greedy: tuple[list[str], list[list[int]]]
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "generation_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert answers(folder) == greedy


def test_old_settings_in_the_model_config_and_without_packing(
    tiny_model: str, tmp_path: Path, greedy: tuple[list[str], list[list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"repetition_penalty": 1.8, "num_beams": 3}))
    monkeypatch.setattr(families, "FAMILIES", ())
    assert answers(folder) == greedy


def test_settings_that_transformers_does_not_save_do_not_stop_a_full_fine_tune(tiny_model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_beams": 1, "early_stopping": True, "top_p": 3.0}))
    load_model(locate(str(folder)), precision="fp32", quantization="none").save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert saved.keys() - {"transformers_version"} == {"bos_token_id", "eos_token_id", "pad_token_id"}


def test_the_config_of_the_model_is_left_as_it_was(tiny_model: str) -> None:
    source = locate(tiny_model)
    model = load_model(source, precision="fp32", quantization="none")
    model.generation_config.repetition_penalty = 1.8
    generate(model, Encoder(QA, load_tokenizer(source)), QA.load("en", "test")[:1], name="test")
    assert model.generation_config.repetition_penalty == 1.8


def test_answers_end_at_special_tokens_of_the_config_and_at_ends_of_turns(tiny_model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    source = locate(str(folder))
    model, tokenizer = load_model(source, precision="fp32", quantization="none"), load_tokenizer(source)
    assert end_tokens(model, tokenizer) == {tokenizer.eos_token_id}
    model.config.eos_token_id = [tokenizer.eos_token_id, tokenizer.bos_token_id, 50]
    assert end_tokens(model, tokenizer) == {tokenizer.eos_token_id, tokenizer.bos_token_id}
    tokenizer.add_tokens(["<|end|>"], special_tokens=True)
    assert tokenizer.convert_tokens_to_ids("<|end|>") in end_tokens(model, tokenizer)
    load_tokenizer.cache_clear()
