"""What is published: its numbers agree with each other, and the archive of the study gives its report again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import statsmodels.formula.api as formulas
from statsmodels.stats.anova import anova_lm

from analysis import analyze
from whichlora import archive

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STUDY = DOCS / "pocket-study"
DESIGNS = {"pocket-study": (6, 2, 3), "xnli-note": (3, 1, 2)}
"""Methods, target languages and ratios of what is published; all have three seeds."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study's tracking database and artifacts."""
    folder = tmp_path_factory.mktemp("study") / "unpacked"
    assert archive.main(["unpack", str(STUDY / "tracking.tar.xz"), "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def home(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, as the one to work in."""
    uri = f"sqlite:///{unpacked / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(unpacked)
    mlflow.set_tracking_uri(uri)
    return unpacked


def table_of(folder: Path) -> pd.DataFrame:
    """The published table of all runs."""
    return pd.read_csv(folder / "results.csv")


def records_of(folder: Path) -> list[dict[str, Any]]:
    """The published statistics."""
    found: list[dict[str, Any]] = json.loads((folder / "statistics.json").read_text())
    return found


def test_the_table_of_runs_is_the_tracking_database(home: Path) -> None:
    table = table_of(STUDY)
    client = mlflow.MlflowClient()
    (experiment,) = (e for e in client.search_experiments() if e.name == "pocket")
    runs = client.search_runs([experiment.experiment_id], "tags.`whichlora.kind` = 'run'", max_results=1000)
    finished = {run.info.run_id: run for run in runs if run.info.status == "FINISHED"}
    assert set(table["run_id"]) == set(finished)
    for row in table.to_dict("records"):
        run = finished[row["run_id"]]
        assert run.data.metrics[f"test/{row['outcome']}/f1"] == row["f1"]
        assert (run.data.params["variant"], int(run.data.params["seed"])) == (row["variant"], row["seed"])
        assert float(run.data.params["tl_ratio"]) == row["tl_ratio"]


def test_a_cell_of_the_page_follows_from_the_predictions(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own Python, called in the folder of the archive."""
    page = (STUDY / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    exec(block, {})
    printed = [float(line) for line in capsys.readouterr().out.split()]
    comment = re.search("# (.+)", block)
    assert comment is not None
    assert [f"{score:.1f}" for score in printed] == re.findall(r"[\d.]+", comment[1])
    row = next(line for line in page.splitlines() if line.startswith("| DoRA |"))
    assert row.endswith(f" / {sum(printed) / 3:.1f} |")


@pytest.mark.parametrize("name", DESIGNS)
def test_the_design_is_whole(name: str) -> None:
    methods, languages, ratios = DESIGNS[name]
    table = table_of(DOCS / name)
    assert table["method"].nunique() == methods
    cells = table[table["outcome"] == "tl"].groupby(["method", "language", "tl_ratio"])["seed"].agg(["size", "nunique"])
    assert len(cells) == methods * languages * ratios
    assert (cells == 3).all(axis=None)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("outcome", ["en", "tl"])
def test_the_statistics_are_those_of_the_table(name: str, outcome: str) -> None:
    """The omnibus test once more, by statsmodels, from the published table alone; an adapter's results are one."""
    table, records = table_of(DOCS / name), records_of(DOCS / name)
    own = table[table["outcome"] == outcome].fillna({"language": "all"})
    shared = own.groupby("adapter")["language"].transform("nunique") > 1
    own = own.assign(block=own["language"].mask(shared, "all") + own["tl_ratio"].astype(str))
    cells = own.groupby(["method", "block"])["f1"].mean().mul(100).reset_index()

    def found(test: str) -> list[Mapping[str, Any]]:
        return [r for r in records if (r["outcome"], r["analysis"]) == (outcome, "blocked") and r["test"] == test]

    means = {record["groups"][0]: record["effect"] for record in found("adjusted mean")}
    assert means == pytest.approx(cells.groupby("method")["f1"].mean().to_dict())
    kinds = {r["analysis"] for r in records if r["outcome"] == outcome}
    primary = "primary, all blocks" if "primary, all blocks" in kinds else "primary"
    for record in [r for r in records if (r["outcome"], r["analysis"]) == (outcome, primary) and r["df"]]:
        first, second = (means[method] for method in record["groups"])
        assert record["effect"] == pytest.approx(first - second)
    (told,) = found("F, method against method x block")
    again = anova_lm(formulas.ols("f1 ~ C(method) + C(block)", cells).fit())
    assert told["statistic"] == pytest.approx(again.loc["C(method)", "F"])
    assert told["p"] == pytest.approx(again.loc["C(method)", "PR(>F)"])
    assert told["df"] == [again.loc["C(method)", "df"], again.loc["Residual", "df"]]


@pytest.mark.slow
def test_the_archive_gives_the_report_again(home: Path) -> None:
    table, records = table_of(STUDY), records_of(STUDY)
    assert analyze.main(["--experiment", "pocket", "--output", "again"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(home / "again" / "results.csv")[list(table)], table)
    written = json.loads((home / "again" / "statistics.json").read_text())
    assert len(written) == len(records)
    for ours, published in zip(written, records, strict=True):
        numbers = {key: close(value) for key, value in published.items() if key != "note"}  # its wording may change
        assert numbers == {key: value for key, value in ours.items() if key != "note"}
        if ours["analysis"] == "claim" and ours["groups"]:
            verdict, was = (record["note"].partition(":")[0] for record in (ours, published))
            assert verdict == was


@pytest.mark.slow
def test_the_report_is_the_same_with_one_thread_and_with_two(tmp_path: Path) -> None:
    made = []
    for threads in ("1", "2"):
        variables = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        arguments = ["--results", str(STUDY / "results.csv"), "--output", threads]
        done = subprocess.run(
            [sys.executable, "-m", "analysis.analyze", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        made.append((tmp_path / threads / "statistics.json").read_bytes())
    assert made[0] == made[1]


def close(value: Any) -> Any:
    """The same up to the last digits, which depend on the processor."""
    if isinstance(value, list) and value and not isinstance(value[0], str):
        return pytest.approx(value, rel=1e-6, abs=1e-9)
    return pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value
