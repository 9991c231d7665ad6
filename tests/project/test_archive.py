"""Results that were packed and unpacked elsewhere are the same, can be opened, and are not made again."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from runs import plan_of, run_of

from whichlora.archive import main


@pytest.fixture(scope="module")
def packed(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_model: str
) -> tuple[Path, pd.DataFrame]:
    """An archive of one run, whose folder is gone, and the run's predictions."""
    home = tmp_path_factory.mktemp("a home with spaces")
    shutil.copy(empty_database, home / "mlflow.db")
    uri, file = f"sqlite:///{home / 'mlflow.db'}", tmp_path_factory.mktemp("post") / "study.tar.xz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.chdir(home)
        mlflow.set_tracking_uri(uri)
        run_id = run_of(plan_of(tiny_model, variant="lora"), experiment="adapter").run_id
        predictions = pd.read_parquet(
            mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="predictions/tl.parquet")
        )
        assert main(["pack", str(file)]) == 0
        patch.chdir("/")
    shutil.rmtree(home)
    return file, predictions


def test_what_is_unpacked_is_what_was_packed_and_is_not_made_again(
    packed: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, predictions = packed
    folder = tmp_path / "elsewhere, 100%"
    assert main(["unpack", str(file), "--folder", str(folder)]) == 0
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(uri)
    result = run_of(plan_of(tiny_model, variant="lora"), experiment="adapter")
    assert "Already done" in capsys.readouterr().err
    found = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="predictions/tl.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(found), predictions)
    # And a new run lands beside the others.
    other = run_of(plan_of(tiny_model, variant="lora", seed=7))
    place = mlflow.MlflowClient().get_run(other.run_id).info.artifact_uri
    assert place.startswith(folder.as_uri())
    assert (folder / "mlartifacts" / "tests" / other.run_id / "artifacts" / "adapter").is_dir()


def test_an_archive_names_no_folder_of_the_machine_and_holds_no_adapter(packed: tuple[Path, pd.DataFrame]) -> None:
    with tarfile.open(packed[0]) as tar:
        names = tar.getnames()
        database = tar.extractfile("mlflow.db").read()
    assert any(name.endswith("predictions/en.parquet") for name in names)
    assert not any("/artifacts/adapter/" in name for name in names)
    assert any(name.startswith("mlartifacts/adapter/") for name in names)  # an experiment may be called so
    for part in (b"a home with spaces", b"a%20home"):
        assert part not in database


def test_adapters_come_along_when_asked(store: Path, tiny_model: str) -> None:
    run_of(plan_of(tiny_model, variant="lora"))
    assert main(["pack", "with.tar", "--adapters", "true"]) == 0
    with tarfile.open("with.tar") as tar:
        assert any(name.endswith("adapter/adapter_model.safetensors") for name in tar.getnames())


def test_what_cannot_be_done_is_refused(
    packed: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        return capsys.readouterr().err

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert "mlflow.db" in refused("pack", "none.tar")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9" in refused("pack", "none.tar")
    (tmp_path / "text.tar").write_text("no archive")
    assert "cannot be read" in refused("unpack", "text.tar", "--folder", "new")
    assert not Path("new").exists()
    assert "folder=" in refused("unpack", str(packed[0]), "--folder", "text.tar")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "text.tar", arcname="text")
    assert "has no mlflow.db" in refused("unpack", "other.tar", "--folder", "new")
    for name, kind in (("../out", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(tmp_path / "other.tar", "w") as tar:
            tar.add(tmp_path / "text.tar", arcname="mlflow.db")
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/"
            tar.addfile(member)
        assert f"{name} is not a regular file" in refused("unpack", "other.tar", "--folder", "new")
        assert not Path("new").exists()
    (tmp_path / "mlflow.db").touch()
    assert "already" in refused("unpack", str(packed[0]), "--folder", str(tmp_path))
