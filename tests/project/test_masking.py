"""Passwords in addresses and variables reach neither the terminal nor a database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from whichlora.archive import main as archive
from whichlora.errors import OptionError
from whichlora.masking import masked
from whichlora.run.summary import Result, summary
from whichlora.scheduling.retries import repeat_until_done, with_retries
from whichlora.testing.runs import small_plan
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:pa55@host/db", "postgresql://me:***@host/db"),
        ("postgresql+psycopg://me:p%40/s:s@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:pa55@/db?host=/tmp", "postgresql://:***@/db?host=/tmp"),
        ("mysql+pymysql://root:x@h/d and http://a:b@c", "mysql+pymysql://root:***@h/d and http://a:***@c"),
        ("https://t0ken@host/x", "https://***@host/x"),
        (
            "postgresql:///db?user=me&password=pa55&sslmode=require",
            "postgresql:///db?user=me&password=***&sslmode=require",
        ),
        ("host=h password='a b' dbname=d", "host=h password=*** dbname=d"),
        ("(URL('postgresql://me:pa55@host/db'))", "(URL('postgresql://me:***@host/db'))"),
        ("postgresql://whichlora@host/optuna", "postgresql://whichlora@host/optuna"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("http://127.0.0.1:5000/api", "http://127.0.0.1:5000/api"),
        ("first_token=drop, 5 tokens: a@b", "first_token=drop, 5 tokens: a@b"),
    ],
)
def test_passwords_in_addresses(text: str, expected: str) -> None:
    assert masked(text) == expected
    assert masked(masked(text)) == expected


def test_passwords_in_variables_wherever_they_appear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "of postgres")
    monkeypatch.setenv("WHICHLORA_STORAGE", "postgresql://me:p%40ss%2Fword@host/db")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallelism")
    assert masked("refused 'of postgres', p@ss/word and p%40ss%2Fword") == "refused '***', *** and ***"
    assert masked("parallelism") == "parallelism"


SECRET = "hunter2-and-more"
ADDRESS = f"postgresql://me:{SECRET}@127.0.0.1:9/db"


def test_errors_and_summaries_have_no_password(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SECRET not in str(OptionError("MLFLOW_TRACKING_URI", ADDRESS, "must be another"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    for command in (["pack", "x.tar"], ["relocate"]):
        assert archive(command) == 2
        assert "me:***@127.0.0.1" in capsys.readouterr().err
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: ADDRESS)
    plan = small_plan(tiny_model, variant="none")
    metrics = dict.fromkeys(("test/en/f1", "test/tl/f1", "base/en/f1", "base/tl/f1"), 0.5)
    text = summary(plan, Result(run_id="r", metrics=metrics))
    assert SECRET not in text
    assert "at postgresql://me:***@127.0.0.1:9/db" in text


def test_errors_of_libraries_have_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = iter([OSError(f"cannot reach {ADDRESS}"), None, RuntimeError(f"no {ADDRESS}"), None])

    def work() -> bool:
        error = next(outcomes)
        if error is not None:
            raise error
        return False

    with_retries(work, poll=0)
    repeat_until_done(work, poll=0)
    err = capsys.readouterr().err
    assert err.count("me:***@") == 2
    assert SECRET not in err


def test_what_is_tracked_has_no_password(store: Path) -> None:
    log = Tracker(connect(), "tests").open("run", "one", {"fingerprint": "f"})
    log.params({"address": ADDRESS})
    log.tags({"note": ADDRESS})
    with pytest.raises(RuntimeError), log.guarded():
        raise RuntimeError(ADDRESS)
    data = log.client.get_run(log.run_id).data
    assert SECRET not in str(data.tags) + str(data.params)
    assert "me:***@" in data.params["address"]
    assert "me:***@" in data.tags["whichlora.error"]


def test_tracebacks_and_logs_of_a_command_have_no_password(tmp_path: Path) -> None:
    code = (
        "import logging, os, sys\n"
        "from whichlora.command_line import exit_with\n"
        "def main():\n"
        "    logging.basicConfig()\n"
        "    logging.warning('no %s', os.environ['WHICHLORA_STORAGE'])\n"
        "    print(os.environ['WHICHLORA_STORAGE'])\n"
        "    raise RuntimeError(os.environ['WHICHLORA_STORAGE'])\n"
        "exit_with(main)\n"
    )
    environment = {**os.environ, "WHICHLORA_STORAGE": ADDRESS}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert (ended.stdout + ended.stderr).count("me:***@") == 3
    assert SECRET not in ended.stdout + ended.stderr
