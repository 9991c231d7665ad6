"""The packaged experiments on real model shapes without weights, with few items."""

from __future__ import annotations

from typing import Any

import folders
import pytest
import yaml
from packaged_experiments import EXPERIMENTS, FEW, packaged
from shapes import config_of
from transformers import AutoTokenizer

from whichlora.experiment.grid import Grid, read_grid

SHAPES = {
    "meta-llama/Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.2-3B": "llama-3.2-3b",
    "Qwen/Qwen3-8B-Base": "qwen3-8b",
}
CHAT = (
    "{% for turn in messages %}{{ turn['role'] + ': ' + turn['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of both tasks in which every language of the study has items to train on."""
    folder = tmp_path_factory.mktemp("data")
    xnli, tydiqa = folders.xnli_folder(folder / "xnli", dev=300), folders.tydiqa_folder(folder / "tydiqa")
    for language in ("en", "sw", "bn", "te"):
        rows = folders.tydiqa_rows(language, "train", 300)
        folders.write(folder / "tydiqa" / f"{language}.train.json", rows)
    return {"xnli": xnli, "tydiqa": tydiqa, "align-words": xnli}  # word pairs are packaged; XNLI is what is retained


@pytest.fixture(scope="session")
def read(data: dict[str, str], tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Read a packaged experiment with few items and with folders in the place of the hub."""
    folder = tmp_path_factory.mktemp("models")

    def model(name: str) -> str:
        path = folder / name.rpartition("/")[2]
        if not path.exists():
            config_of(SHAPES[name]).save_pretrained(path)
            tokenizer = AutoTokenizer.from_pretrained(tiny_model)
            tokenizer.chat_template = CHAT if name.endswith("Instruct") else None
            tokenizer.save_pretrained(path)
        return str(path)

    def read_with(name: str, **changes: Any) -> Grid:
        defaults = packaged(name)["defaults"]
        path = folder / "read.yaml"
        local: dict[str, Any] = {"data_dir": data[defaults["task"]]}
        if "model" in defaults:
            names = defaults["model"]
            local["model"] = model(names) if isinstance(names, str) else list(map(model, names))
        few = {"extends": str(EXPERIMENTS / name), "defaults": FEW | local | changes}
        path.write_text(yaml.safe_dump(few))
        return read_grid(str(path))

    return read_with
