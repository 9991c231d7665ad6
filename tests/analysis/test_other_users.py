"""Results in a folder of another user, who lets everyone read: what only reads them needs no right to write there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import yaml
from runs import SMALL, plan_of, run_of
from synthetic import log_design

from tuning.study_status import PREFIX
from whichlora.scheduling import queue

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root to become another user"
)
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folders(empty_database: Path, tiny_model: str) -> Iterator[tuple[Path, Path]]:
    """A folder with runs, a study and a model that belongs to root, and one of the other user."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        Path(scratch).chmod(0o755)
        shared, own = Path(scratch) / "shared", Path(scratch) / "own"
        for folder in (shared, own):
            folder.mkdir()
        os.chown(own, 65534, 65534)
        shutil.copy(empty_database, shared / "mlflow.db")
        shutil.copytree(tiny_model, shared / "model")
        uri, before = f"sqlite:///{shared / 'mlflow.db'}", mlflow.get_tracking_uri()
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1, 2, 3), items=12)
        run_of(plan_of(shared / "model", variant="none"), experiment="whichlora")
        import optuna

        optuna.create_study(study_name=f"{PREFIX}mine", storage=queue.connect()).set_user_attr("command", "x")
        content = {"name": "grid", "defaults": {"model": str(shared / "model"), **SMALL}, "arms": [{"variant": "lora"}]}
        (shared / "grid.yaml").write_text(yaml.safe_dump(content))
        untrained = {k: v for k, v in SMALL.items() if k not in ("learning_rate", "batch_size")}
        content |= {"name": "whichlora", "defaults": {"model": str(shared / "model"), **untrained}}
        (shared / "done.yaml").write_text(yaml.safe_dump({**content, "arms": [{"variant": "none"}]}))
        mlflow.set_tracking_uri(before)
        for path in shared.rglob("*.lock"):
            path.unlink()
        for path in shared.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield shared, own


@pytest.fixture
def call(folders: tuple[Path, Path]) -> Iterator[Call]:
    """A function that calls a command as the other user; afterwards the folder is as it was."""
    shared, own = folders

    def state() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in shared.rglob("*"))

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", *command],
            cwd=own,
            env={k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
            | {"MLFLOW_TRACKING_URI": f"sqlite:///{shared / 'mlflow.db'}", "HOME": str(own)}
            | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    before = state()
    yield run
    assert state() == before


def test_the_other_user_cannot_write(call: Call, folders: tuple[Path, Path]) -> None:
    assert call("timeit", "-n1", "-r1", f"open({str(folders[0] / 'x')!r}, 'w')").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["analysis.analyze", "--experiment", "e", "--output", "report"], "The report is "),
        (["tuning.study", "status"], "mine: no trials"),
        (["whichlora.archive", "pack", "it.tar"], "it.tar: "),
        (["whichlora.experiment", "--file", "{shared}/grid.yaml", "--dry_run", "true"], "1 missing"),
        (["whichlora.database"], ""),
    ],
)
def test_commands_that_read_work(call: Call, folders: tuple[Path, Path], command: list[str], says: str) -> None:
    done = call(*(part.format(shared=folders[0]) for part in command))
    assert done.returncode == 0, done.stderr[-3000:]
    assert says in done.stdout
    assert "Traceback" not in done.stderr


def options(shared: Path, **changes: object) -> list[str]:
    values = {**SMALL, "model": shared / "model", **changes}
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


@pytest.mark.slow
def test_a_finished_run_is_found_and_a_new_one_refused_in_a_line(call: Call, folders: tuple[Path, Path]) -> None:
    shared, _ = folders
    untrained = {k: v for k, v in SMALL.items() if k not in ("learning_rate", "batch_size")}
    arguments = [part for name, value in untrained.items() for part in (f"--{name}", str(value))]
    done = call("whichlora.run", *arguments, "--model", str(shared / "model"), "--variant", "none")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Already done" in done.stderr
    done = call("whichlora.run", *options(shared, variant="lora"))
    assert done.returncode == 2, done.stderr[-3000:]
    assert "error: MLFLOW_TRACKING_URI=" in done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "variable"),
    [
        (["tuning.study", "stop", "mine"], "WHICHLORA_STORAGE"),
        (["tuning.tune", "--model", "{shared}/model", "--trials", "1"], "MLFLOW_TRACKING_URI"),
        (["whichlora.experiment", "--file", "{shared}/grid.yaml"], "MLFLOW_TRACKING_URI"),
        (["whichlora.experiment", "--file", "{shared}/grid.yaml", "--workers", "2"], "MLFLOW_TRACKING_URI"),
    ],
)
def test_commands_that_write_are_refused_in_a_line(
    call: Call, folders: tuple[Path, Path], command: list[str], variable: str
) -> None:
    done = call(*(part.format(shared=folders[0]) for part in command))
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert line.startswith(f"error: {variable}=")
    assert "this user cannot write" in line
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_experiment_whose_runs_are_done_is_read(call: Call, folders: tuple[Path, Path]) -> None:
    done = call("whichlora.experiment", "--file", str(folders[0] / "done.yaml"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 of 1 runs are done." in done.stdout


@pytest.mark.slow
def test_a_probe_of_a_run_finds_the_run_and_is_refused_in_a_line(call: Call, folders: tuple[Path, Path]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folders[0] / 'mlflow.db'}")
        client = mlflow.MlflowClient(f"sqlite:///{folders[0] / 'mlflow.db'}")
        where = [e.experiment_id for e in client.search_experiments() if e.name == "whichlora"]
        (run,) = client.search_runs(where, "tags.`whichlora.kind` = 'run'")
    done = call("whichlora.probing", "--run_id", run.info.run_id, "--items", "3")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "cannot write" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["tuning.study", "status"],
        ["whichlora.experiment", "--file", "{shared}/grid.yaml", "--dry_run", "true"],
        ["analysis.analyze", "--experiment", "e"],
        ["whichlora.archive", "pack", "it.tar"],
    ],
)
def test_commands_that_read_create_nothing_where_there_is_nothing(
    folders: tuple[Path, Path], tmp_path: Path, command: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *(part.format(shared=folders[0]) for part in command)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
