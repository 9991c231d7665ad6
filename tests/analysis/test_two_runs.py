"""`whichlora diff`: what differs between two runs, and paired tests on the same items."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wcwidth
from mlflow.tracking import MlflowClient
from scipy.stats import binomtest
from synthetic import LABELS, log_run, spec

from analysis import diff
from analysis.two_runs.answers import compare
from analysis.two_runs.params import CIRCUMSTANCES, DECISIVE, VERSIONS, differences


def log_predictions(run_id: str, test_set: str, frame: pd.DataFrame) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        frame.to_parquet(Path(scratch) / f"{test_set}.parquet")
        MlflowClient().log_artifacts(run_id, scratch, "predictions")


def runs(*ids: str) -> list[Any]:
    return [MlflowClient().get_run(run_id) for run_id in ids]


def called(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    assert diff.main(arguments) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_scores_and_tests_are_those_of_the_logged_answers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = log_run(spec("lora"), "e", f1={"tl": 0.9}), log_run(spec("vera"), "e", f1={"tl": 0.6})
    frames = [
        pd.read_parquet(MlflowClient().download_artifacts(run_id, "predictions/tl.parquet"))
        for run_id in (first, second)
    ]
    right = [(frame["gold"] == frame["predicted"]).to_numpy() for frame in frames]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    found = {c.test_set: c for c in compare(*runs(first, second))}["tl"]
    assert [*found.discordant()] == only
    assert found.mcnemar is not None
    assert found.mcnemar.p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(100 * (right[0].mean() - right[1].mean()))
    low, high = found.difference.interval or (np.nan, np.nan)
    assert low < found.difference.effect < high
    assert len(found.differing()) == int((frames[0]["predicted"] != frames[1]["predicted"]).sum())
    text = called(capsys, first[:8], second)
    (line,) = [line for line in text.splitlines() if line.split()[:3] == ["tl", "90.0", "60.0"]]
    assert line.split()[3] == "+30.0"
    assert f"{found.mcnemar.p:.1e}" in line
    assert "answers differ, such as:" in text


def test_answers_are_paired_by_id_whatever_their_order(store: Path) -> None:
    first, second = log_run(spec("lora"), "e"), log_run(spec("vera"), "e")
    before = compare(*runs(first, second))
    frame = pd.read_parquet(MlflowClient().download_artifacts(second, "predictions/tl.parquet"))
    log_predictions(second, "tl", frame.sample(frac=1, random_state=1))
    assert [c.discordant() for c in compare(*runs(first, second))] == [c.discordant() for c in before]


def test_what_differs_is_grouped(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = MlflowClient()
    first, second = log_run(spec("lora", seed=1), "e"), log_run(spec("lora", seed=2), "e")
    client.log_param(first, "version/torch", "2.12")
    client.log_param(second, "version/torch", "2.13")
    client.set_tag(second, "mlflow.source.git.commit", "abc")
    found = differences(*runs(first, second))
    assert found[DECISIVE].values == {"seed": ("1", "2")}
    assert found[VERSIONS].values == {"version/torch": ("2.12", "2.13")}
    assert found[CIRCUMSTANCES].values == {"git commit": ("-", "abc")}
    text = called(capsys, first, second)
    assert f"Spec: 1 of {found[DECISIVE].same + 1} values differs:" in text


def test_other_items_are_not_paired(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the digests, by the ids where there are no digests, and by the right answers."""
    first, other = log_run(spec("lora"), "e"), log_run(spec("lora", language="ur"), "e")
    unlike = {c.test_set: c.unlike for c in compare(*runs(first, other))}
    assert unlike == {"en": "", "tl": "the runs were scored on other items"}
    assert "tl: the runs were scored on other items, so there is no paired test." in called(capsys, first, other)
    second = log_run(spec("vera"), "e")
    frame = pd.read_parquet(MlflowClient().download_artifacts(second, "predictions/tl.parquet"))
    for change, reason in (
        (frame.assign(id=[f"x{i}" for i in range(len(frame))]), "the runs were scored on other items"),
        (frame.assign(id="same"), "the runs were scored on other items"),
        (frame.head(30), "the runs were scored on other items"),
        (frame.assign(gold=LABELS[0]), "the items have other right answers"),
    ):
        log_predictions(second, "tl", change)
        assert {c.test_set: c.unlike for c in compare(*runs(first, second))}["tl"] == reason


def test_answers_scored_in_parts_have_a_bootstrap_only(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (log_run(spec(name, task="atlas-qa", scoring="generate"), "e") for name in ("lora", "vera"))
    gold = [f"name{i} of city" for i in range(40)]
    for run_id, answers in ((first, gold), (second, [f"name{i} of" if i % 2 else f"name{i}" for i in range(40)])):
        frame = pd.DataFrame({"id": map(str, range(40)), "gold": gold, "predicted": answers})
        for test_set in ("en", "tl"):
            log_predictions(run_id, test_set, frame)
    found = compare(*runs(first, second))[0]
    assert not found.right
    assert found.mcnemar is None
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(100 * (1 - np.mean([2 * 2 / 5, 2 * 1 / 4])))
    text = called(capsys, first, second, "--items", "0")
    assert "token F1" in text
    assert "McNemar" not in text
    assert "40 of 40 answers differ." in text


def test_the_same_answers_are_no_error(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = log_run(spec(), "e"), log_run(spec(), "f")
    text = called(capsys, first, second)
    assert "Both have one spec." in text
    assert re.search(r"^Spec: all \d+ values are equal\.$", text, re.MULTILINE)
    assert "tl: 0 of 60 answers differ." in text


@pytest.mark.parametrize("width", [40, 80, 120])
def test_tables_fit_the_terminal(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    first, second = log_run(spec("lora"), "e"), log_run(spec("vera", model="模型/" + "大" * 90), "e")
    frame = pd.DataFrame(
        {"id": ["a\nb", "日本"], "gold": ["x" * 300, "العربية"], "predicted": ["\x1b[31m", "हिन्दी"], "p_x": 0.5}
    )
    for run_id in (first, second):
        log_predictions(run_id, "tl", frame)
    monkeypatch.setenv("COLUMNS", str(width))
    text = called(capsys, first, second)
    assert max(map(wcwidth.width, text.splitlines())) <= width
    assert "\x1b" not in text


def test_what_cannot_be_compared_is_said_in_one_line(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = log_run(spec(), "e")
    failed, running = log_run(spec(seed=2), "e", status="FAILED"), log_run(spec(seed=3), "e", status="RUNNING")
    other, empty = log_run(spec(task="atlas-qa"), "e"), log_run(spec(seed=4), "e", items=0)
    summary = log_run(spec(seed=5), "e")
    MlflowClient().set_tag(summary, "whichlora.kind", "summary")
    for second, message in (
        (
            "f" * 32,
            f"second={'f' * 32}: there is no such run in the tracking database; `whichlora runs` lists the runs",
        ),
        ("x y", "second=x y: must be the id of a run or its first four or more hexadecimal digits"),
        (first, f"second={first}: must be another run than first"),
        (other, f"second={other}: must be a run of the same task as first; the tasks are atlas-nli and atlas-qa"),
        (failed, f"second={failed}: has no result (failed): ProofError: module q_proj gets no gradient"),
        (running, f"second={running}: has no result (running): it has not finished"),
        (summary, f"second={summary}: must be a run or base or trial, but is a summary"),
        (empty, f"second={empty}: has no en predictions that can be read"),
    ):
        err = called(capsys, first, second, status=2)
        assert err.splitlines()[-1].startswith(f"error: {message}")
    assert "second=" in called(capsys, first, second, "--items", "0", status=2)
    assert "items=-1: " in called(capsys, first, other, "--items", "-1", status=2)


def test_without_a_database_none_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    assert "there is no tracking database" in called(capsys, "abcd", "abce", status=2)
    assert not list(tmp_path.iterdir())
