"""Archives from strangers, and folders with more in them than results: nothing else is unpacked or packed."""

from __future__ import annotations

import io
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from whichlora.archive import main
from whichlora.scheduling.queue import Queue
from whichlora.scheduling.queue import connect as connect_queue
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker

RECORD = "mlartifacts/tests/{}/artifacts/notes/record.json"


@pytest.fixture
def results(store: Path) -> tuple[Path, str]:
    """A folder with one run that has an artifact, and a queue; the id of the run."""
    log = Tracker(connect(), "tests").open("run", "one", {"fingerprint": "f"})
    (store / "out").mkdir()
    (store / "out" / "record.json").write_text("{}")
    log.artifacts(store / "out", "notes")
    shutil.rmtree(store / "out")
    Queue("q", connect_queue())
    return store, log.run_id


@pytest.fixture
def packed(results: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a good archive of these results, in a folder of their own."""
    folder = tmp_path_factory.mktemp("post")
    assert main(["pack", str(folder / "good.tar")]) == 0
    with tarfile.open(folder / "good.tar") as tar:
        tar.extractall(folder / "content")  # the archive is our own; `filter` is not in 3.11.0 to 3.11.3
    return folder


def tar_of(packed: Path, *more: tuple[tarfile.TarInfo, bytes], first: bool = False, kind: str = "") -> Path:
    """Write an archive of the good files, and of `more` after or before them."""
    path = packed / f"made.tar{kind and '.' + kind}"
    with tarfile.open(path, f"w:{kind}") as tar:
        for member, content in more if first else ():
            tar.addfile(member, io.BytesIO(content))
        for file in sorted((packed / "content").rglob("*"), key=lambda file: file.suffix != ".db"):
            tar.add(file, arcname=file.relative_to(packed / "content").as_posix(), recursive=False)
        for member, content in () if first else more:
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, "/etc/passwd"
    return info, content


def refused(capsys: pytest.CaptureFixture[str], archive: Path, *options: str) -> str:
    """Unpack, check that it is refused in one line and leaves nothing, and return the line."""
    site = archive.parent / "site"
    for folder in (site, site / "new", site / "new" / "deep"):
        before = sorted(site.rglob("*")) if site.exists() else None
        assert main(["unpack", str(archive), "--folder", str(folder), *options]) == 2
        assert (sorted(site.rglob("*")) if site.exists() else None) == before
    site.mkdir()
    assert main(["unpack", str(archive), "--folder", str(site), *options]) == 2
    assert list(site.iterdir()) == []
    site.rmdir()
    assert not [path for path in archive.parent.iterdir() if path.name.startswith(".")]
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)
    return lines[-1]


def test_what_pack_wrote_is_unpacked(packed: Path, results: tuple[Path, str]) -> None:
    for number, kind in enumerate(("", "gz", "xz", "bz2")):
        folder = packed / f"new {number}"
        assert main(["unpack", str(tar_of(packed, kind=kind)), "--folder", str(folder)]) == 0
        assert {path.name for path in folder.iterdir()} == {"mlflow.db", "optuna.db", "mlartifacts"}
        assert (folder / RECORD.format(results[1])).read_text() == "{}"
        assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(packed.stat().st_mode) | 0o755
        assert stat.S_IMODE((folder / "mlflow.db").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "name",
    [
        *("filelock.py", "uvicorn.py", "sitecustomize.py", "torch/__init__.py", "whichlora/__init__.py", "x.pth"),
        *(".env", ".bashrc", "mlartifacts/.hidden.json", "mlartifacts/.git/config.json", "MLproject", "conda.yaml"),
        *("/etc/cron.d/x.json", "../out.json", "mlartifacts/../../out.json", "mlartifacts/../filelock.py"),
        *("mlartifacts/x.py", "mlartifacts/x.so", "mlartifacts/x.pkl", "mlartifacts/x", "mlartifacts/a.JSON.PYC"),
        *("mlartifacts/a\x1b[2J.json", "mlartifacts\\a.json", "mlflow.db-journal", "mlflow.db-wal", "optuna.db.lock"),
        *("mlartifacts/mlmodel", "mlartifacts/MLproject", "MLmodel", "mlartifacts/x.pth", "mlartifacts/code/x.py"),
        *("mlflow.db/x.json", "sub/mlflow.db", "MLFLOW.DB", "mlartifacts.json"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_other_names_are_refused(packed: Path, capsys: pytest.CaptureFixture[str], name: str, first: bool) -> None:
    text = refused(capsys, tar_of(packed, member(name), first=first))
    assert "\x1b" not in text
    assert "is not a file that results are made of" in text


def test_a_model_with_code_of_its_own_is_refused(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content = "mlartifacts/tests/models/m-1/artifacts/MLmodel", b"flavors: {python_function: {loader_module: os}}"
    text = refused(capsys, tar_of(packed, member(name, content)))
    assert f"{name} has a loader_module that is not of this package" in text


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_are_refused(packed: Path, capsys: pytest.CaptureFixture[str], kind: bytes) -> None:
    assert refused(capsys, tar_of(packed, member("mlartifacts/tests/x.json", kind=kind)))


@pytest.mark.parametrize("name", ["mlflow.db", "./mlflow.db", "mlartifacts/tests/x.json"])
def test_a_name_that_comes_twice_is_refused(packed: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    once = [] if name.endswith(".db") else [member(name)]
    assert "twice" in refused(capsys, tar_of(packed, *once, member(name)))


LOCATIONS = [
    "../../..",
    "..",
    "file:///etc",
    "/etc",
    "mlartifacts/../../x",
    "s3://bucket/x",
    "http://127.0.0.1/x",
    ".",
    "whichlora",
]
LOCATIONS += ["file:mlartifacts/x", "mlflow-artifacts:/1", "mlartifacts\\x", "mlartifacts/\x00x"]


CHANGES = [
    "UPDATE runs SET artifact_uri = ?",
    "UPDATE experiments SET artifact_location = ? WHERE name = 'tests'",
    "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, "
    "last_updated_timestamp_ms, status) VALUES ('m', 1, 'm', ?, 0, 0, 1)",
    "INSERT INTO model_versions (name, version, source, workspace) VALUES ('m', 1, ?, 'default')",
    "INSERT INTO model_versions (name, version, storage_location, workspace) VALUES ('m', 1, ?, 'default')",
    "INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.artifactLocation', ?, 'r')",
    "INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.trace.archiveLocation', ?, 'r')",
    "UPDATE workspaces SET default_artifact_root = ?",
    "UPDATE workspaces SET trace_archival_location = ?",
]


@pytest.mark.parametrize(
    ("change", "uri"), [(CHANGES[0], uri) for uri in LOCATIONS] + [(change, LOCATIONS[0]) for change in CHANGES[1:]]
)
def test_locations_outside_are_refused(packed: Path, capsys: pytest.CaptureFixture[str], change: str, uri: str) -> None:
    with closing(sqlite3.connect(packed / "content" / "mlflow.db")) as database:
        database.execute(change, (uri,))
        database.commit()
    assert "outside of the archive" in refused(capsys, tar_of(packed))


@pytest.mark.parametrize("empty", ["NULL", "''"])
def test_a_model_and_a_run_without_a_location_are_unpacked(packed: Path, empty: str) -> None:
    with closing(sqlite3.connect(packed / "content" / "mlflow.db")) as database:
        database.execute(
            "INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms, "
            "last_updated_timestamp_ms, status, source_run_id) SELECT 'm', 1, 'm', '', 0, 0, 1, run_uuid FROM runs"
        )
        database.execute(f"UPDATE runs SET artifact_uri = {empty}")
        database.commit()
    assert main(["unpack", str(tar_of(packed)), "--folder", str(packed / "new")]) == 0


def test_every_column_of_mlflow_that_may_hold_a_location_is_known(store: Path) -> None:
    """A new version of MLflow may have new ones."""
    from whichlora.tracking.packed import _KEPT, _LOCATIONS

    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        columns = {
            (table, row[1])
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for row in database.execute(f"PRAGMA table_info({table})")
        }
    words = ("location", "uri", "artifact", "storage", "path", "url")
    suspicious = {(t, c) for t, c in columns if t in _KEPT and any(word in c for word in words)}
    assert suspicious <= set(_LOCATIONS)


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TRIGGER t AFTER UPDATE ON runs BEGIN UPDATE runs SET artifact_uri = '/etc'; END"],
        [
            "CREATE TRIGGER t AFTER UPDATE ON runs BEGIN UPDATE runs SET artifact_uri = '/etc'; "
            "-- BEGIN\nSELECT RAISE(ABORT, 'x');\n END"
        ],
        ["CREATE VIEW v AS SELECT * FROM runs"],
        ["ALTER TABLE runs RENAME TO r", "CREATE VIEW runs AS SELECT * FROM r"],
        ["CREATE VIRTUAL TABLE v USING fts5(x)"],
        ["DROP TABLE runs"],
    ],
)
def test_databases_that_run_something_or_are_none_of_runs_are_refused(
    packed: Path, capsys: pytest.CaptureFixture[str], statements: list[str]
) -> None:
    with closing(sqlite3.connect(packed / "content" / "mlflow.db")) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    assert "mlflow.db" in refused(capsys, tar_of(packed))


def damaged(database: Path) -> None:
    with database.open("r+b") as file:
        file.seek(database.stat().st_size // 2)
        file.write(os.urandom(20_000))


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("no database"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(b"SQLite format 3\0" + os.urandom(9000)),
        damaged,
        lambda path: (path.unlink(), sqlite3.connect(path).execute("CREATE TABLE a (b)").connection.close()),
    ],
)
def test_what_is_no_database_of_results_is_refused(
    packed: Path, capsys: pytest.CaptureFixture[str], name: str, spoil: Callable[[Path], object]
) -> None:
    spoil(packed / "content" / name)
    assert name in refused(capsys, tar_of(packed))


def test_tables_with_secrets_and_code_are_neither_packed_nor_unpacked(packed: Path, results: tuple[Path, str]) -> None:
    add = (
        "INSERT INTO webhooks (webhook_id, name, url, status, secret, creation_timestamp, last_updated_timestamp, "
        "workspace) VALUES ('w', 'w', 'http://evil', 'ACTIVE', 'sesame', 0, 0, 'default')"
    )
    for folder in (packed / "content", results[0]):
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            database.execute(add)
            database.commit()
    assert main(["unpack", str(tar_of(packed)), "--folder", str(packed / "new")]) == 0
    assert b"sesame" not in (packed / "new" / "mlflow.db").read_bytes()
    assert main(["pack", str(packed / "again.tar")]) == 0
    assert b"sesame" not in (packed / "again.tar").read_bytes()


@pytest.mark.parametrize("kind", ["", "gz", "xz"])
def test_a_bomb_stops_at_the_limit(packed: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    info, _ = member("mlartifacts/tests/x.json", bytes(100 * 2**20))
    archive = tar_of(packed, (info, bytes(info.size)), kind=kind)
    assert "limit" in refused(capsys, archive, "--limit", "0.05")
    assert main(["unpack", str(archive), "--folder", str(packed / "new"), "--limit", "0.2"]) == 0


@pytest.mark.slow
def test_many_small_files_count_as_what_they_take(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [member(f"mlartifacts/tests/{number}.json", b"") for number in range(4000)]
    assert "limit" in refused(capsys, tar_of(packed, *more, kind="xz"), "--limit", "0.015")


def test_a_header_as_long_as_the_memory_is_refused(packed: Path) -> None:
    """The header is read at once, before its member has a size."""
    info = tarfile.TarInfo("@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2 * 2**30
    path = packed / "long.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(packed / "content" / "mlflow.db", arcname="mlflow.db")
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
        for _ in range(2 * 2**10):
            tar.fileobj.write(bytes(2**20))  # type: ignore[union-attr]
    done = subprocess.run(
        [sys.executable, "-m", "whichlora.archive", "unpack", str(path), "--folder", str(packed / "new")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "header" in done.stderr
    assert not (packed / "new").exists()


@pytest.mark.parametrize("kind", ["", "gz", "xz", "bz2"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_archive_is_refused(packed: Path, capsys: pytest.CaptureFixture[str], kind: str, share: float) -> None:
    archive = tar_of(packed, kind=kind)
    archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    assert refused(capsys, archive)


def test_a_full_disk_leaves_nothing(packed: Path, results: tuple[Path, str]) -> None:
    """A limit on the size of files stands for a full disk."""
    for arguments in (
        ["unpack", str(tar_of(packed)), "--folder", str(packed / "new")],
        ["pack", str(packed / "x.tar")],
    ):
        before = sorted(packed.rglob("*"))
        done = subprocess.run(
            [sys.executable, "-m", "whichlora.archive", *arguments],
            env=os.environ | {"TMPDIR": str(packed)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, done.stderr[-2000:]
        assert "Traceback" not in done.stderr
        assert sorted(packed.rglob("*")) == before


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db", "mlartifacts", "notes.txt", ".hidden"])
def test_nothing_of_the_target_is_overwritten(packed: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = packed / "full"
    folder.mkdir()
    (folder / name).write_text("mine")
    assert main(["unpack", str(tar_of(packed)), "--folder", str(folder)]) == 2
    assert "already" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [(name, "mine")]


def packed_names(folder: Path) -> list[str]:
    assert main(["pack", str(folder / "it.tar")]) == 0
    with tarfile.open(folder / "it.tar") as tar:
        assert b"sesame" not in b"".join(tar.extractfile(m).read() for m in tar.getmembers())  # type: ignore[union-attr]
        return tar.getnames()


def secrets(folder: Path) -> Path:
    place = folder / "SECRETS"
    place.mkdir(exist_ok=True)
    (place / "key.json").write_text("sesame")
    return place


@pytest.mark.parametrize("form", ["{home}/../SECRETS", "file://{home}/../SECRETS", "{secrets}", "../SECRETS", "{home}"])
def test_locations_outside_are_not_packed(
    results: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    post = tmp_path_factory.mktemp("post")
    home = shutil.copytree(results[0], post / "home")
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    (home / "inside.json").write_text("sesame")
    uri = form.format(home=home, secrets=secrets(post))
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        database.execute("UPDATE runs SET artifact_uri = ?", (uri,))
        database.commit()
    assert packed_names(post) == ["mlflow.db", "optuna.db"]
    assert main(["unpack", str(post / "it.tar"), "--folder", str(post / "new")]) == 0


def test_links_that_lead_out_are_not_followed(
    results: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    store, run_id = results
    post = tmp_path_factory.mktemp("post")
    place, record = secrets(post), store / RECORD.format(run_id)
    (record.parent / "key.json").symlink_to(place / "key.json")
    (record.parent / "folder").symlink_to(place)
    (record.parent / "same.json").symlink_to(record)
    (record.parent / "loop.json").symlink_to("loop.json")
    (record.parent / "model.pkl").write_text("sesame")
    (record.parent / ".env").write_text("sesame")
    names = packed_names(post)
    assert names == ["mlflow.db", "optuna.db", RECORD.format(run_id), RECORD.format(run_id).replace("record", "same")]
    assert "not included" in capsys.readouterr().out
    assert main(["unpack", str(post / "it.tar"), "--folder", str(post / "new")]) == 0
    shutil.move(store / "mlartifacts", place / "mlartifacts")
    (store / "mlartifacts").symlink_to(place / "mlartifacts")
    assert packed_names(post) == ["mlflow.db", "optuna.db"]


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db", "archive.py", "results"])
def test_an_archive_is_written_to_files_of_its_own_kind(
    results: tuple[Path, str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    before = (results[0] / "mlflow.db").read_bytes()
    assert main(["pack", name]) == 2
    assert "must end in" in capsys.readouterr().err
    assert (results[0] / "mlflow.db").read_bytes() == before


@pytest.mark.parametrize("content", ["", "no database"])
def test_a_database_that_is_none_is_not_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "mlflow.db").write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert main(["pack", "x.tar"]) == 2
    assert "must be a database of runs" in capsys.readouterr().err
    assert not (tmp_path / "x.tar").exists()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much", ""])
def test_a_limit_is_a_number(packed: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert "limit=" in refused(capsys, packed / "good.tar", "--limit", text)
