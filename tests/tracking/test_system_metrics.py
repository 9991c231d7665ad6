"""The curves of system metrics: their pace, resumed and simultaneous runs, a lost server and a lost lease."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from whichlora.errors import LostLeaseError
from whichlora.tracking import system_metrics
from whichlora.tracking.client import connect
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker
from whichlora.tracking.system_metrics import pace
from whichlora.tracking.telemetry import Telemetry

MEMORY = "system/process_memory_usage_megabytes"


def new_run(client: MlflowClient, name: str) -> RunLog:
    return Tracker(client, "curves").open("run", name, {"fingerprint": name})


def points(log: RunLog, name: str = MEMORY) -> list[tuple[int, int]]:
    """Return the steps and times of a curve."""
    return [(point.step, point.timestamp) for point in log.client.get_metric_history(log.run_id, name)]


@pytest.mark.parametrize(
    ("seconds", "fewest", "most"),
    [(0.5, 4, 6), (5, 8, 12), (60, 50, 70), (600, 150, 250), (36_000, 300, 500), (172_800, 600, 800)],
)
def test_a_short_run_has_a_curve_and_a_long_one_no_flood(seconds: float, fewest: int, most: int) -> None:
    elapsed, samples, n_points = 0.0, 0, 1
    while elapsed < seconds:
        interval, per_point = pace(elapsed)
        assert interval <= 1
        assert per_point <= 600
        elapsed += interval
        samples += 1
        if samples >= per_point:
            n_points, samples = n_points + 1, 0
    assert fewest <= n_points <= most


@pytest.mark.parametrize(
    ("interval", "samples", "expected"),
    [("30", "", (30, 1)), ("30", "4", (30, 4)), ("0.5", "", (0.5, 1)), ("0.001", "", (0.1, 1)), ("", "5", (1, 5))],
)
def test_mlflows_variables_keep_their_meaning_in_a_long_run(
    interval: str, samples: str, expected: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SAMPLING_INTERVAL", interval), ("SAMPLES_BEFORE_LOGGING", samples)):
        if value:
            monkeypatch.setenv(f"MLFLOW_SYSTEM_METRICS_{name}", value)
    assert pace(36_000) == expected


def test_a_peak_of_a_second_counts_after_hours(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures have the peak; the curve has means of a minute, in which it is lower."""
    log = new_run(connect(), "peak")
    monkeypatch.setattr(system_metrics, "pace", lambda elapsed: pace(elapsed + 3600))
    with Telemetry(log) as telemetry:
        time.sleep(0.3)
        block = bytearray(300 * 2**20)
        time.sleep(1.1)
        del block
        time.sleep(1)
    curve = [point.value * 1e6 / 2**20 for point in log.client.get_metric_history(log.run_id, MEMORY)]
    opening, rest = curve
    assert telemetry.metrics()["host/memory_max_mb"] > opening + 280
    assert opening + 50 < rest < opening + 250


def test_a_resumed_run_continues_its_curve(store: Path) -> None:
    log = new_run(connect(), "resumed")
    for _ in range(2):
        with Telemetry(log):
            time.sleep(0.3)
    steps, times = zip(*points(log), strict=True)
    assert steps == tuple(range(len(steps)))
    assert sorted(times) == list(times)
    assert len(steps) >= 6


def test_runs_at_the_same_time_do_not_mix(store: Path) -> None:
    """One window lies inside of the other."""
    logs = [new_run(connect(), name) for name in ("outer", "inner")]
    threads = set(threading.enumerate())
    windows = [Telemetry(log) for log in logs]
    with windows[0]:
        time.sleep(0.4)
        with windows[1]:
            time.sleep(0.6)  # several samples on a busy machine too
            block = bytearray(200 * 2**20)
            time.sleep(0.6)
        time.sleep(0.4)
        del block
    outer, inner = (points(log) for log in logs)
    for own in (outer, inner):
        assert [step for step, _ in own] == list(range(len(own)))
    assert outer[0][1] < inner[0][1] <= inner[-1][1] < outer[-1][1]
    assert len(outer) > len(inner) >= 3
    after = Telemetry(new_run(connect(), "after"))
    with after:
        pass
    peaks = [window.metrics()["host/memory_max_mb"] for window in (*windows, after)]
    assert peaks[2] < min(peaks[:2]) - 150
    assert all(thread.daemon for thread in set(threading.enumerate()) - threads)


def test_nothing_is_written_into_a_run_that_belongs_to_another_process(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(system_metrics, "_WRITE_SECONDS", 0.1)
    log = new_run(connect(), "leased")
    lost = threading.Event()

    def check() -> None:
        if lost.is_set():
            raise LostLeaseError("no heartbeat")

    with Telemetry(RunLog(log.client, log.run_id, check)) as telemetry:
        time.sleep(0.8)
        lost.set()
        time.sleep(0.3)
        before = points(log)
        time.sleep(0.5)
    assert before
    assert points(log) == before
    assert not capsys.readouterr().err
    assert telemetry.metrics()["host/memory_max_mb"] > 0
