"""Clocks of machines differ and are set: no decision may depend on comparing the times of two of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from mlflow.entities import Metric
from optuna.trial import TrialState
from sqlalchemy import text

from tuning.study_status import connect as connect_studies
from tuning.study_status import names, status, stop
from tuning.tune import main as tune
from whichlora.experiment.command import main as experiment
from whichlora.scheduling import leases
from whichlora.scheduling.queue import Queue, connect
from whichlora.tracking.client import connect as connect_tracking
from whichlora.tracking.runs import Tracker

DAYS = 2 * 24 * 3600.0
SMALL = {"train_size": 16, "validation_size": 6, "test_size": 6, "epochs": 1, "rank": 2}


def set_clock(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    """Set the clock of this process ahead, as seen by Python."""
    monkeypatch.setattr("time.time", lambda: time.clock_gettime(time.CLOCK_REALTIME) + ahead)


@pytest.mark.parametrize("ahead", [DAYS, -DAYS])
def test_a_cell_that_was_completed_under_another_clock_is_done_again_when_its_result_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    queue = Queue("test", connect(f"sqlite:///{tmp_path / 'optuna.db'}"))
    done: list[str] = []
    set_clock(monkeypatch, ahead)
    queue.offer(["a"])
    queue.work(lambda cell, check: done.append(cell))
    set_clock(monkeypatch, 0)
    queue.offer(["a"], completed=queue.completed())
    queue.work(lambda cell, check: done.append(cell))
    assert done == ["a", "a"]


@pytest.mark.parametrize("ahead", [DAYS, -DAYS])
def test_a_cell_that_another_process_completes_after_the_survey_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    queue = Queue("test", connect(f"sqlite:///{tmp_path / 'optuna.db'}"))
    done: list[str] = []
    surveyed = queue.completed()
    set_clock(monkeypatch, ahead)
    queue.offer(["a"])
    queue.work(lambda cell, check: done.append(cell))
    set_clock(monkeypatch, 0)
    queue.offer(["a"], completed=surveyed)
    queue.work(lambda cell, check: done.append(cell))
    assert done == ["a"]
    assert queue.states() == {"a": TrialState.COMPLETE}


def test_cells_that_an_earlier_version_offered_are_done(tmp_path: Path) -> None:
    queue = Queue("test", connect(f"sqlite:///{tmp_path / 'optuna.db'}"))
    attributes = {"cell": "a", "missing_at": time.time() + DAYS, "attempt": 1, "deaths": 0, "after": None}
    queue._study.enqueue_trial({}, user_attrs=attributes)
    done: list[str] = []
    queue.work(lambda cell, check: done.append(cell))
    assert done == ["a"]


@pytest.mark.slow
def test_a_deleted_run_of_an_experiment_made_under_a_clock_ahead_is_run_again(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"name": "grid", "defaults": {**SMALL, "model": tiny_model}, "arms": [{"variant": "lora"}]}
    (store / "grid.yaml").write_text(yaml.safe_dump(content))
    set_clock(monkeypatch, DAYS)
    assert experiment(["--file", "grid.yaml"]) == 0
    set_clock(monkeypatch, 0)
    client = connect_tracking()
    number = client.get_experiment_by_name("grid").experiment_id
    (run,) = client.search_runs([number], "tags.`whichlora.kind` = 'run'")
    assert run.info.start_time / 1000 > time.time() + DAYS / 2
    client.delete_run(run.info.run_id)
    capsys.readouterr()
    assert experiment(["--file", "grid.yaml"]) == 0
    assert "1 of 1 runs are done." in capsys.readouterr().out
    (again,) = client.search_runs([number], "tags.`whichlora.kind` = 'run'")
    assert again.info.run_id != run.info.run_id


@pytest.mark.parametrize("ahead", [-600.0, 600.0])
def test_a_study_is_stopped_whatever_the_clock_of_the_stopping_machine_says(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    from tuning.tune import OPTIONS, study_configs

    texts = {name: default for name, (default, _) in OPTIONS.items()}
    (config,) = study_configs({**texts, **{k: str(v) for k, v in SMALL.items()}, "model": tiny_model})

    def opened() -> object:
        from tuning.optuna_study import Study

        return Study(config, Tracker(connect_tracking(), "whichlora"), connect_studies(), command="")

    running = opened()
    for _ in range(2):
        assert not running.stopped()
        set_clock(monkeypatch, ahead)
        (name,) = names(connect_studies())
        stop(connect_studies(), name)
        assert running.stopped()
        set_clock(monkeypatch, 0)
        running = opened()  # as the command that opened it does to resume it
    running.optuna.set_user_attr("stopped", time.time() + DAYS)  # as earlier versions did
    running = opened()
    assert not running.stopped()
    stop(connect_studies(), name)
    assert running.stopped()


def test_a_worker_on_another_machine_that_died_under_a_clock_ahead_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = connect(f"sqlite:///{tmp_path / 'optuna.db'}")
    queue = Queue("test", storage)
    queue.offer(["a"])
    trial = queue._study.ask()
    trial.set_user_attr("worker", "another machine/1/1")
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '+2 days')"))
    monkeypatch.setattr(leases, "GRACE_SECONDS", 1)
    done: list[str] = []
    began = time.monotonic()
    queue.work(lambda cell, check: done.append(cell), poll=0.2)
    assert done == ["a"]
    assert time.monotonic() - began > 1


def test_a_worker_on_another_machine_with_new_heartbeats_keeps_its_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = connect(f"sqlite:///{tmp_path / 'optuna.db'}")
    queue = Queue("test", storage)
    queue.offer(["a"])
    trial = queue._study.ask()
    trial.set_user_attr("worker", "another machine/1/1")
    storage.record_heartbeat(trial._trial_id)
    monkeypatch.setattr(leases, "GRACE_SECONDS", 1)
    holder = leases.Leases(queue._study, lambda study, trial: pytest.fail("its worker lives"))
    for seconds in range(5):
        with storage.engine.begin() as connection:
            change = f"UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '+{seconds} seconds')"
            connection.execute(text(change))
        assert holder.orphans() == []
        time.sleep(0.5)


def test_a_heartbeat_in_the_future_is_shown_as_none_ago(store: Path) -> None:
    import optuna

    storage = connect_studies()
    study = optuna.create_study(study_name="tune/one", storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '+2 days')"))
    assert "last heartbeat of a running trial: 0 s ago" in status(storage)


def test_a_metric_logged_again_replaces_one_of_a_clock_ahead(store: Path) -> None:
    log = Tracker(connect_tracking(), "tests").open("study", "one", {"fingerprint": "f"})
    ahead = int((time.time() + DAYS) * 1000)
    log.client.log_batch(log.run_id, metrics=[Metric("best/f1", 0.9, ahead, 0), Metric("other", 0.5, ahead, 0)])
    for value in (0.4, 0.3):
        log.metrics({"best/f1": value})
        assert log.client.get_run(log.run_id).data.metrics == {"best/f1": value, "other": 0.5}


@pytest.mark.slow
def test_a_timeout_does_not_depend_on_the_clock(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clock is set ahead during the first trial; the second still starts."""
    times = iter([0.0] * 3)
    monkeypatch.setattr("time.time", lambda: time.clock_gettime(time.CLOCK_REALTIME) + next(times, DAYS))
    options = {**SMALL, "model": tiny_model, "trials": 1, "timeout": 600, "pruner": "none"}
    assert tune([part for name, value in options.items() for part in (f"--{name}", str(value))]) == 0
    assert "no best point" not in capsys.readouterr().out
