"""A model of the hub in the local cache is found offline, and verified before its weights are used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from whichlora.errors import OptionError
from whichlora.models import hub
from whichlora.models.loading import load_model, locate, read_shape

NAME, COMMIT = "someone/tiny", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The tiny model in a cache of the hub, as huggingface_hub arranges it."""
    from transformers.utils import hub as transformers_hub

    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for path in Path(tiny_model).iterdir():
        content = path.read_bytes()
        is_large = path.suffix == ".safetensors"
        digest = hashlib.sha256(content) if is_large else hashlib.sha1(b"blob %d\0" % len(content) + content)
        blob = repository / "blobs" / digest.hexdigest()
        blob.write_bytes(content)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setattr(transformers_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    yield snapshot
    hub.find_commit.cache_clear()
    hub.check_cached_files.cache_clear()


def load() -> None:
    load_model(locate(NAME), precision="fp32", quantization="none")


def test_an_intact_copy_is_used(snapshot: Path) -> None:
    source = locate(NAME)
    assert (source.digest, source.revision) == (f"{NAME}@{COMMIT}", COMMIT)
    assert read_shape(source).n_layers == 3
    load()


def test_a_model_that_is_not_there_is_refused_in_one_line(snapshot: Path) -> None:
    with pytest.raises(OptionError, match=r"^model=someone/other: allowed are smollm2-135m, gemma3-270m, a folder .*$"):
        locate("someone/other")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json"])
def test_a_damaged_file_is_named(snapshot: Path, name: str) -> None:
    blob = (snapshot / name).resolve()
    content = blob.read_bytes()
    blob.write_bytes(content[:-1000] + bytes(1000) if name == "model.safetensors" else content + b" ")
    with pytest.raises(OptionError) as caught:
        load()
    assert str(caught.value) == f"model={NAME}: {name} in the cache is damaged; delete {blob}"


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_in_the_repository_is_refused(snapshot: Path, alone: bool) -> None:
    (snapshot / "adapter_config.json").write_text("{}")
    if alone:
        (snapshot / "config.json").unlink()
    with pytest.raises(OptionError, match=f"^model={NAME}: the repository holds an adapter"):
        locate(NAME)
