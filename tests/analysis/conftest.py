"""Tracking databases with invented runs; made once, because logging takes a second for some 20 runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest
from synthetic import log_design, log_run, spec
from synthetic_pairs import log_injection, pair_spec
from synthetic_probes import aligned_table, log_aligned, log_probe, weight_table

EFFECTS = {"vera": -0.15}
CLAIMS = """
claims:
  - {name: mine, says: VeRA is last., outcome: tl, test: order, arguments: {order: "* > VeRA"}}
"""


@pytest.fixture(scope="session")
def full_design(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> str:
    """The URI of a database whose experiment `full` has three methods, two languages, two ratios and three seeds.

    VeRA is 15 points worse. The experiment `bare` has one run with a probe of each kind, and one of injection: a
    design with nothing to compare.
    """
    folder = tmp_path_factory.mktemp("full")
    shutil.copy(empty_database, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    log_design("full", effects=EFFECTS)
    source = log_run(spec(), "bare")
    log_probe(spec(), "bare", source=source)
    log_aligned(spec(), "bare", source=source, table=aligned_table(cka=True), against="base")
    log_probe(spec(), "bare", source=source, kind="weights", table=weight_table())
    log_injection(pair_spec(), "bare", lost=0.1)
    mlflow.set_tracking_uri(before)
    return uri


@pytest.fixture
def full(full_design: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Use that database, read only by agreement."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", full_design)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(full_design)
    return full_design


@pytest.fixture(scope="session")
def written(full_design: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report of the experiment `full`, with a claim of the test's own in `mine.yaml` beside it."""
    from analysis import analyze

    folder = tmp_path_factory.mktemp("report")
    (folder / "mine.yaml").write_text(CLAIMS)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(full_design)
    options = {"experiment": "full", "output": str(folder / "out"), "claims": str(folder / "mine.yaml")}
    status = analyze.main([part for name, value in options.items() for part in (f"--{name}", value)])
    mlflow.set_tracking_uri(before)
    assert status == 0
    return folder / "out"
