"""The files of a base model's licence lie beside everything that is made from it, wherever the model is from."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from gguf_files import write_gguf
from runs import plan_of, run_of

from whichlora.archive import main as archive
from whichlora.export.command import main as export
from whichlora.models.loading import locate
from whichlora.models.notices import SENTENCES, is_document, notice
from whichlora.models.packaged import CATALOGUE, packaged_model_folder
from whichlora.models.published import published, write_notice
from whichlora.run.pipeline import trial
from whichlora.tracking.client import connect
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.runs import Tracker
from whichlora.tracking.sqlite import artifact_folder

GEMMA = CATALOGUE["gemma3-270m"]
SENTENCE = SENTENCES["gemma"]
TERMS = "These are the terms."


@pytest.fixture(autouse=True)
def terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the terms in the folder of the packaged model, in a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert GEMMA.terms is not None
    sha256 = hashlib.sha256(TERMS.encode()).hexdigest()
    own = replace(GEMMA, terms=replace(GEMMA.terms, sha256=sha256), files={**GEMMA.files, GEMMA.terms.file: sha256})
    monkeypatch.setitem(CATALOGUE, GEMMA.name, own)  # type: ignore[arg-type]
    file = packaged_model_folder(GEMMA.name) / GEMMA.terms.file
    file.parent.mkdir(parents=True)
    file.write_text(TERMS)
    return file


@pytest.fixture
def model(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def written(model: Path, folder: Path) -> tuple[str | None, dict[str, str]]:
    """Return the licence of a model, and the texts that are written beside an adapter of it, by name."""
    folder.mkdir()
    base = published(locate(str(model)))
    write_notice(folder, base, "adapter")
    return base.licence, {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_a_packaged_folder_given_by_path_is_under_its_licence(model: Path, terms: Path, tmp_path: Path) -> None:
    shutil.copy(terms, model)
    licence, files = written(model, tmp_path / "by its terms")
    assert (licence, list(files), files[terms.name]) == ("gemma", [terms.name, "NOTICE"], TERMS)
    assert files["NOTICE"].startswith(SENTENCE)
    (model / terms.name).unlink()
    (model / "NOTICE").write_text(notice("gemma", "google/gemma-3-270m", "converted") or "")
    licence, files = written(model, tmp_path / "by its notice")
    assert (licence, list(files), files[terms.name]) == ("gemma", [terms.name, "NOTICE"], TERMS)
    assert "an adapter, made by training on top of model" in files["NOTICE"]
    assert "converted from google/gemma-3-270m" in files["NOTICE"]  # earlier changes stay named


def test_the_text_of_a_packaged_licence_is_known(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default, text = CATALOGUE["smollm2-135m"], "Apache License"
    files = {**default.files, "LICENSE": hashlib.sha256(text.encode()).hexdigest()}
    monkeypatch.setitem(CATALOGUE, default.name, replace(default, files=files))  # type: ignore[arg-type]
    (model / "LICENSE").write_text(text)
    assert written(model, tmp_path / "a") == ("apache-2.0", {"LICENSE": text})


def test_documents_of_any_folder_are_copied_and_others_are_not(model: Path, tmp_path: Path) -> None:
    documents = {"LICENSE.txt": "MIT", "NOTICE": "by them", "USE_POLICY.md": "no harm"}
    for name, text in documents.items():
        (model / name).write_text(text)
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    (model / "COPYING").mkdir()
    assert written(model, tmp_path / "a") == ("mit", documents)


def test_a_card_alone_brings_notice_and_terms(model: Path, terms: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("---\nlicense: gemma\n---\n")
    licence, files = written(model, tmp_path / "a")
    assert (licence, list(files)) == ("gemma", [terms.name, "NOTICE"])


def test_terms_that_cannot_be_had_are_named_in_one_warning(
    model: Path, terms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    terms.write_text("other terms")
    (model / "README.md").write_text("---\nlicense: gemma\n---\n")
    for name in ("a", "b"):
        assert list(written(model, tmp_path / name)[1]) == ["NOTICE"]
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "get them from ai.google.dev/gemma/terms before you pass it on" in warnings[0]


def test_a_gguf_file_under_terms_brings_them(tiny_model: str, terms: Path, tmp_path: Path) -> None:
    file = write_gguf(Path(tiny_model), tmp_path / "a.gguf", change=lambda writer: writer.add_license("gemma"))
    (tmp_path / "LICENSE").write_text("of a project that keeps the file")
    assert list(written(file, tmp_path / "a")[1]) == [terms.name, "NOTICE"]
    silent = write_gguf(Path(tiny_model), tmp_path / "b.gguf")
    assert written(silent, tmp_path / "b") == (None, {})
    (tmp_path / "NOTICE").write_text(f"{SENTENCE}\n")
    assert written(silent, tmp_path / "c")[0] == "gemma"


@pytest.mark.parametrize("name", ["LICENSE", "LICENCE.md", "license-2.0.txt", "COPYING", "GEMMA_TERMS.html", "Notice"])
def test_names_of_documents(name: str) -> None:
    assert is_document(name)


@pytest.mark.parametrize("name", ["README.md", "LICENSE.py", "license-x.sh", "terms.json", "notices.html", "NOTICE.so"])
def test_other_names(name: str) -> None:
    assert not is_document(name)


@pytest.mark.slow
def test_runs_trials_models_exports_and_archives_have_them(
    model: Path, store: Path, terms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "README.md").write_text("---\nlicense: gemma\n---\n")
    (model / "LICENSE").write_text("more")
    documents = {"NOTICE", "LICENSE", terms.name}
    plan, client = plan_of(model), connect()
    run_id = run_of(plan).run_id
    reused = run_of(plan_of(model, test_size=4)).run_id
    assert client.get_run(reused).data.tags["whichlora.adapter_of"] == run_id
    trials = [trial(plan, Tracker(client, "tests"), tags={"study": "s"}).run_id]
    logged = model_of_run(client, run_id)
    assert logged is not None
    ids = (run_id, reused, *trials)
    for location in (*(client.get_run(id_).info.artifact_uri for id_ in ids), logged.artifact_location):
        folder = artifact_folder(location)
        assert folder is not None
        assert documents <= {path.name for path in (folder / "adapter").iterdir()}, location
        assert (folder / "adapter" / "NOTICE").read_text().startswith(SENTENCE)
    adapter = artifact_folder(client.get_run(run_id).info.artifact_uri)
    assert adapter is not None
    for name in documents:  # as an earlier version left it
        (adapter / "adapter" / name).unlink()
    for form in ("adapter", "merged"):
        out = store / form
        assert export(["--run_id", trials[0], "--output", str(out), "--form", form]) == 0
        assert documents <= {path.name for path in out.iterdir()}
    capsys.readouterr()
    assert archive(["pack", "all.tar", "--adapters", "true"]) == 0
    assert "of other kinds" not in capsys.readouterr().out
    with tarfile.open("all.tar") as tar:
        packed = [name for name in tar.getnames() if name.endswith("/adapter/NOTICE")]
    assert len(packed) >= len(trials) + 1
