"""Successive halving with real small trainings: results by rung, budgets, workers, and deaths of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState
from small_studies import call, runs, study

from tuning import finalists
from tuning.halving.brackets import in_rung, place_of
from tuning.study import main as listing
from tuning.study_config import FRESH_SEEDS
from tuning.study_status import PREFIX, connect, names
from tuning.tune import OPTIONS, study_configs
from tuning.tuned import chosen, tune_variants
from whichlora.tracking.client import connect as connect_tracking
from whichlora.tracking.runs import Tracker

ROOT = Path(__file__).parents[2]
RUNGS = {"rungs": "2", "trials": "4", "train_size": "32", "batch_size": "2", "keep_adapters": "none"}
"""One bracket: four points on 8 items, and the best and the matched one on 32."""


def results() -> dict[Any, Any]:
    """Return the results of the only study by place: point, seed, value, and whether it learned."""
    storage = connect()
    (name,) = names(storage)
    trials = optuna.load_study(study_name=PREFIX + name, storage=storage).get_trials()
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    found = {place_of(t): (t.params, t.user_attrs["seed"], t.values, t.user_attrs["learned"]) for t in complete}
    assert len(found) == len(complete)  # no training was done twice
    return found


def best() -> Any:
    """Return metrics of the study's run that tell which point was chosen."""
    (parent,) = runs("study")
    return {name: value for name, value in parent.data.metrics.items() if name in ("best/fresh_f1", "best/f1")}


@pytest.mark.slow
def test_a_study_shows_its_rungs(options: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call(options | RUNGS) == 0
    found = study(options | RUNGS)
    low, high = (in_rung(found.counted(), rung) for rung in range(2))
    assert (len(low), len(high)) in ((4, 1), (4, 2))  # the matched point may be the best one
    matched = found.config.known_points["matched"]
    assert matched in [trial.params for trial in high]
    trained = {run.info.run_id: run for run in runs("trial")}
    for trials, items in ((low, "8"), (high, "32")):
        assert {trained[trial.user_attrs["run_id"]].data.params["train_size"] for trial in trials} == {items}
    scored = finalists.finalists(found)
    assert {f.origin for f in scored} <= {*(f"trial {t.number}" for t in high), "matched", "recommended"}
    assert all(len(f.fresh) == len(FRESH_SEEDS) for f in scored)

    printed = capsys.readouterr().out
    assert "lora: trials: 4 on 8 items, 2 on 32 items\n" in printed
    assert f"| lora | 4/{len(high)} | 0 |" in printed
    assert f"Best of {len(high)} trials on all 32 items of {found.name}:" in printed
    assert f"{found.name}: cost of 1.0 of 4 trainings, 4/0 trials by rung" in printed
    assert "lora: 4 trials on 8 items, " in printed
    (parent,) = runs("study")
    assert (parent.data.metrics["trials/rung_0"], parent.data.metrics["trials/rung_1"]) == (4, len(high))
    assert parent.data.metrics["tuning/points"] == 4
    assert parent.data.params["rungs"] == "2"
    assert "rungs of 8, 32 training items" in parent.data.tags["mlflow.note.content"]
    table = Path(MlflowClient().download_artifacts(parent.info.run_id, "study/trials.csv")).read_text()
    assert table.startswith("trial,state,bracket,rung,items,value,")
    assert listing(["status"]) == 0
    assert f"complete by rung, from the fewest items to all: 4 / {len(high)}" in capsys.readouterr().out

    before = {run.info.run_id for run in runs("trial")}
    assert call(options | RUNGS) == 0
    assert {run.info.run_id for run in runs("trial")} == before


def start(folder: Path, options: dict[str, str], database: Path) -> subprocess.Popen[bytes]:
    """Start a worker in a folder of its own, with the databases of another one."""
    folder.mkdir(exist_ok=True)
    texts = options | {"space": str(database.parent / "space.yaml")}
    command = [sys.executable, "-m", "tuning.tune", *(p for n, v in texts.items() for p in (f"--{n}", v))]
    own = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT))), "OMP_NUM_THREADS": "1"}
    own |= {"WHICHLORA_STORAGE": f"sqlite:///{database}", "WHICHLORA_CHECKPOINT_SECONDS": "0"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)


@pytest.mark.slow
def test_killed_and_resumed_by_two_workers_elsewhere_a_study_ends_like_an_uninterrupted_one(
    options: dict[str, str], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options | RUNGS
    assert call(given) == 0
    whole, chosen = results(), best()
    assert Counter(place.rung for place in whole)[0] == 4

    client = MlflowClient()
    for kind in ("trial", "study"):  # so that nothing can be reused
        for run in runs(kind):
            client.delete_run(run.info.run_id)
    database = store / "again.db"
    monkeypatch.setenv("WHICHLORA_STORAGE", f"sqlite:///{database}")
    worker = start(store / "first", given, database)
    while worker.poll() is None and sum(run.info.status == "FINISHED" for run in runs("trial")) < 2:
        time.sleep(0.2)
    time.sleep(0.5)  # into the next training
    assert worker.poll() is None, (store / "first" / "log").read_text()[-3000:]
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    workers = [start(store / name, given, database) for name in ("second", "third")]
    assert [worker.wait(500) for worker in workers] == [0, 0], (store / "second" / "log").read_text()[-3000:]
    assert results() == whole
    assert best() == chosen


@pytest.mark.slow
def test_a_budget_that_ends_in_the_first_bracket_leaves_the_known_points(
    options: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = options | RUNGS | {"trials": "auto", "budget": "1"}
    assert call(given) == 0
    found = study(given)
    assert found.on_all_items() == []
    assert 1 <= len(found.counted()) < 4
    assert {f.origin for f in finalists.finalists(found)} == {"matched", "recommended"}
    printed = capsys.readouterr().out
    assert "1/0 trials by rung" in printed
    (parent,) = runs("study")
    assert 0 <= parent.data.metrics["best/fresh_f1"] <= 1


@pytest.mark.slow
def test_other_commands_get_the_chosen_settings_of_each_variant(options: dict[str, str]) -> None:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options | RUNGS
    tracker = Tracker(connect_tracking(), "whichlora")
    tuned = tune_variants(study_configs(texts), tracker, command="compare", trials=4, keep_adapters="none")
    assert [each.config.variant.name for each in tuned] == ["lora"]
    for each in tuned:
        assert not each.missing
        assert each.best is not None
        assert each.best.score == max(f.score for f in each.finalists)
        assert each.seconds > 0
        assert each.fresh_seconds > 0
        assert each.arm is not None
        assert each.arm["source"] == f"study {each.study}"
        assert each.plan(1).spec.train_size == 32  # whatever rung it comes from
        assert each.plan(1).spec.arm == each.arm["arm"]
        assert set(each.undecided) <= set(each.config.space.dimensions)
    again = tune_variants(study_configs(texts), tracker, command="compare", trials=4, keep_adapters="none")
    assert [(each.study, each.best) for each in again] == [(each.study, each.best) for each in tuned]
    assert chosen(study_configs(texts), trials=4, budget=None) == tuned  # which is stored, for these trials only
    assert chosen(study_configs(texts), trials=6, budget=None) == [None]


def test_a_dry_run_prints_the_trials_and_writes_nothing(
    options: dict[str, str], store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "mlflow.db").unlink()
    assert call(options | RUNGS | {"trials": "20", "variant": "lora,vera"}, dry_run="true") == 0
    printed = capsys.readouterr().out
    assert "lora: trials: 36 on 8 items, 10 on 32 items\n" in printed
    assert "vera: trials: 36 on 8 items, " in printed
    assert call(options, dry_run="true") == 0
    assert "lora: trials: 3 on 16 items\n" in capsys.readouterr().out
    assert call(options, dry_run="true", budget="60", trials="auto") == 0
    assert "lora: as many trials as fit in 60 s; how many is known once a run " in capsys.readouterr().out
    assert {path.name for path in store.iterdir()} <= {"space.yaml"}
