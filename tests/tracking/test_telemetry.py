"""Telemetry with the real NVML bindings and a stub library, and on the host alone, logged to a real database.

Each window has a process of its own, because the bindings load `libnvidia-ml.so.1` once per process. It is forked from
one that has imported MLflow and opened the database, which takes seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# For each request, a line of JSON, forks a process that runs `body` in a window and prints the figures, the curves,
# the seconds from inside and from outside the window, the number of threads, and what it wrote to stderr.
SERVICE = """
import contextlib, io, json, os, sys, threading, time, traceback
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.tracking.telemetry import Telemetry

tracker = Tracker(connect(), "windows")

def window(body):
    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose(close=False)
    log = tracker.open("run", "window", {"fingerprint": str(os.getpid())})
    outer = time.monotonic()
    try:
        with Telemetry(log) as telemetry:
            inner = time.monotonic()
            exec(body, globals() | {"log": log})
            inner = time.monotonic() - inner
    except ZeroDivisionError:
        inner = 0
    outer = time.monotonic() - outer
    curves = {
        name: [(point.step, point.value) for point in tracker.client.get_metric_history(log.run_id, name)]
        for name in tracker.client.get_run(log.run_id).data.metrics
    }
    return [telemetry.metrics(), curves, inner, outer, threading.active_count(), "torch" in sys.modules]

for line in sys.stdin:
    body, environment = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.environ.update(environment)
        try:
            with contextlib.redirect_stderr(io.StringIO()) as errors:
                result = window(body)
            print(json.dumps([*result, errors.getvalue()]), flush=True)
        except BaseException:
            print(json.dumps(traceback.format_exc()), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
GPU_METRICS = {
    "gpu/utilization_mean",
    "gpu/memory_mean_mb",
    "gpu/memory_max_mb",
    "gpu/temperature_mean_c",
    "gpu/power_mean_w",
    "gpu/energy_j",
}
HOST_METRICS = {"host/memory_max_mb", "host/cpu_mean"}
GPU_CURVES = {
    f"system/gpu_{{}}_{name}"
    for name in (
        "memory_usage_percentage",
        "memory_usage_megabytes",
        "utilization_percentage",
        "power_usage_watts",
        "power_usage_percentage",
        "temperature_celsius",
    )
}
HOST_CURVES = {
    f"system/{name}"
    for name in (
        "cpu_utilization_percentage",
        "system_memory_usage_megabytes",
        "system_memory_usage_percentage",
        "disk_usage_percentage",
        "disk_usage_megabytes",
        "disk_available_megabytes",
        "network_receive_megabytes",
        "network_transmit_megabytes",
        "process_memory_usage_megabytes",
        "process_cpu_utilization_percentage",
    )
}


class Result:
    """The parsed output of one window."""

    def __init__(self, output: str) -> None:
        values = json.loads(output)
        assert not isinstance(values, str), values
        self.metrics, self.curves, self.inner, self.outer, self.threads, self.imported_torch, self.errors = values


class Windows:
    """Runs windows, each in a process of its own; one service for each library that it starts with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services: dict[Path | None, subprocess.Popen[str]] = {}

    def run(self, body: str, library: Path | None, errors: str = "", **environment: str) -> Result:
        """Run `body` in a window of a new process that loads NVML from the folder `library`; None hides NVML.

        The window must write `errors` to stderr.
        """
        if library not in self._services:
            names = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
            inherited = {name: value for name, value in os.environ.items() if name not in names}
            # The machine that runs the tests may have a GPU.
            own = {"CUDA_VISIBLE_DEVICES": ""} if library is None else {"LD_LIBRARY_PATH": str(library)}
            self._services[library] = subprocess.Popen(
                [sys.executable, "-c", SERVICE],
                env=inherited | own | {"MLFLOW_TRACKING_URI": f"sqlite:///{self._folder / 'mlflow.db'}"},
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        service = self._services[library]
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdin.write(json.dumps([body, environment]) + "\n")
        service.stdin.flush()
        result = Result(service.stdout.readline())
        assert result.errors == errors
        return result

    def close(self) -> None:
        """End the services."""
        for service in self._services.values():
            service.communicate(timeout=60)


@pytest.fixture(scope="module")
def windows(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    folder = tmp_path_factory.mktemp("windows")
    shutil.copy(empty_database, folder / "mlflow.db")
    windows = Windows(folder)
    yield windows
    windows.close()


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the stub and return its folder."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for the stub of NVML")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("stub_nvml.c")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


EVERY_100_MS = {"MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.1"}


def test_a_short_window_has_every_figure(windows: Windows, stub: Path) -> None:
    result = windows.run("time.sleep(0.05)", stub)
    metrics = result.metrics
    assert set(metrics) == GPU_METRICS | HOST_METRICS
    assert metrics["gpu/utilization_mean"] == pytest.approx(60)  # the closing sample alone: 50 and 70
    assert metrics["gpu/temperature_mean_c"] == pytest.approx(55)
    assert metrics["gpu/power_mean_w"] == pytest.approx(250)
    assert metrics["gpu/memory_mean_mb"] == pytest.approx(3100)  # 3000 at the opening, 3200 at the close
    assert metrics["gpu/memory_max_mb"] == pytest.approx(3200)
    assert 1000 * result.inner - 0.01 <= metrics["gpu/energy_j"] <= 1000 * result.outer  # the counter is in mJ


def test_figures_are_of_the_logged_samples(windows: Windows, stub: Path) -> None:
    result = windows.run("time.sleep(1)", stub, STUB_NVML_DEVICES="1", **EVERY_100_MS)
    memory = [value for _, value in result.curves["system/gpu_0_memory_usage_megabytes"]]
    mib = 2**20 / 1e6
    # Each reading of the stub's memory adds 100 MiB, at equal intervals except for the last.
    assert memory == pytest.approx([(1000 + 100 * k) * mib for k in range(len(memory))], abs=0.06)
    assert 6 <= len(memory) <= 12
    assert result.metrics["gpu/memory_max_mb"] == pytest.approx(memory[-1] / mib, abs=0.1)
    assert result.metrics["gpu/memory_mean_mb"] == pytest.approx((1000 + result.metrics["gpu/memory_max_mb"]) / 2, 0.1)
    utilization = [value for _, value in result.curves["system/gpu_0_utilization_percentage"]]
    assert utilization == [min(100, 50 + 10 * k) for k in range(len(memory) - 1)]  # the first is of the time before
    peak = max(value for _, value in result.curves["system/process_memory_usage_megabytes"])
    assert result.metrics["host/memory_max_mb"] == pytest.approx(peak / mib, abs=0.1)


def test_a_second_has_curves_under_the_names_of_mlflow(windows: Windows, stub: Path) -> None:
    curves = windows.run("time.sleep(1)", stub).curves
    assert set(curves) == HOST_CURVES | {name.format(k) for name in GPU_CURVES for k in (0, 1)}
    for name, points in curves.items():
        steps = [step for step, _ in points]
        assert steps == list(range(int("utilization" in name), steps[-1] + 1))
        assert len(steps) >= 4
    assert {value for _, value in curves["system/gpu_1_power_usage_watts"]} == {150}
    assert all(0 <= value <= 100 for _, value in curves["system/cpu_utilization_percentage"])
    assert any(value > 0 for _, value in curves["system/cpu_utilization_percentage"])


def test_mlflows_variables_apply(windows: Windows, stub: Path) -> None:
    off = {"MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false"}
    result = windows.run("time.sleep(0.1)", stub, **off)
    assert not result.curves
    assert set(result.metrics) == GPU_METRICS | HOST_METRICS
    more = {"MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "3", "MLFLOW_SYSTEM_METRICS_NODE_ID": "a"}
    curves = windows.run("time.sleep(1)", stub, **EVERY_100_MS, **more).curves
    assert set(curves) == {
        name.format(k).replace("system/", "system/a/") for name in HOST_CURVES | GPU_CURVES for k in (0, 1)
    }
    assert 3 <= len(curves["system/a/process_memory_usage_megabytes"]) <= 5


def test_a_bad_value_of_mlflows_variables_leaves_the_training_alone(windows: Windows) -> None:
    variable = "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"
    reason = f"Failed to convert 'often' for {variable}: could not convert string to float: 'often'"
    result = windows.run("pass", None, f"warning: no system metrics: {reason}\n", **{variable: "often"})
    assert (result.metrics, result.curves) == ({}, {})


@pytest.mark.parametrize("unsupported", ["energy0,energy1", "energy1"])
def test_energy_without_a_counter_is_the_integral_of_the_power(windows: Windows, stub: Path, unsupported: str) -> None:
    result = windows.run("time.sleep(0.3)", stub, STUB_NVML_UNSUPPORTED=unsupported)
    assert 250 * result.inner - 0.01 <= result.metrics["gpu/energy_j"] <= 250 * result.outer


@pytest.mark.parametrize(
    ("unsupported", "absent"),
    [
        ("power0", {"gpu/power_mean_w"}),
        ("limit0,limit1", set()),
        ("memory1", {"gpu/memory_mean_mb", "gpu/memory_max_mb"}),
        ("utilisation0,utilisation1", {"gpu/utilization_mean"}),
        ("temperature1", {"gpu/temperature_mean_c"}),
        ("power1,energy1", {"gpu/power_mean_w", "gpu/energy_j"}),
    ],
)
def test_an_unsupported_reading_drops_that_figure_only(
    windows: Windows, stub: Path, unsupported: str, absent: set[str]
) -> None:
    metrics = windows.run("pass", stub, STUB_NVML_UNSUPPORTED=unsupported).metrics
    assert set(metrics) == (GPU_METRICS | HOST_METRICS) - absent


@pytest.mark.parametrize(
    ("selection", "watts"),
    [
        ("0", [100]),
        ("1", [150]),
        (" 1, 0", [150, 100]),
        ("GPU-b0000000-0000-0000-0000-000000000000", [150]),
        ("GPU-a", [100]),
        ("MIG-1", [150]),
        ("1,7,0", [150]),  # what follows an entry that names no device is hidden, as in CUDA
        ("", []),
        ("-1", []),
        ("GPU-f", []),
        ("MIG-7", []),
        ("NoDevFiles", []),
    ],
)
def test_cuda_visible_devices_selects(windows: Windows, stub: Path, selection: str, watts: list[int]) -> None:
    result = windows.run("pass", stub, CUDA_VISIBLE_DEVICES=selection)
    assert result.metrics.get("gpu/power_mean_w", 0) == sum(watts)
    assert set(result.metrics) == HOST_METRICS | (GPU_METRICS if watts else set())
    power = {name: points[-1][1] for name, points in result.curves.items() if name.endswith("power_usage_watts")}
    assert power == {f"system/gpu_{k}_power_usage_watts": value for k, value in enumerate(watts)}


@pytest.mark.parametrize("library_of", ["no stub", "stub without devices", "broken library"])
def test_without_a_gpu_only_the_host_is_measured(
    windows: Windows, library_of: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {}
    library: Path | None = None
    if library_of == "stub without devices":
        library, environment = request.getfixturevalue("stub"), {"STUB_NVML_DEVICES": "0"}
    if library_of == "broken library":
        library = tmp_path
        (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    result = windows.run("time.sleep(0.1)", library, **environment)
    assert set(result.metrics) == HOST_METRICS
    assert set(result.curves) == HOST_CURVES
    assert not result.imported_torch


def test_torch_peak_is_summed_over_devices_and_absent_where_cuda_was_not_used(windows: Windows) -> None:
    cuda = "is_initialized=lambda: True, device_count=lambda: 2, max_memory_allocated=lambda device: 2**20 << device"
    fake = f"from types import SimpleNamespace as N; sys.modules['torch'] = N(cuda=N({cuda}))"
    assert windows.run(fake, None).metrics["gpu/torch_peak_mb"] == 3
    assert set(windows.run("import torch", None).metrics) == HOST_METRICS


def test_an_exception_ends_the_window_with_its_figures(windows: Windows, stub: Path) -> None:
    result = windows.run("1 / 0", stub)
    assert set(result.metrics) == GPU_METRICS | HOST_METRICS
    assert len(result.curves["system/process_memory_usage_megabytes"]) == 2
    assert result.threads == 1


def test_an_open_window_does_not_keep_the_process_alive(store: Path) -> None:
    program = """
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.tracking.telemetry import Telemetry
Telemetry(Tracker(connect(), "e").open("run", "n", {})).__enter__()
"""
    subprocess.run([sys.executable, "-c", program], timeout=30, check=True)


def test_cpu_counts_this_process_and_its_children(windows: Windows) -> None:
    def cpu_seconds(body: str) -> float:
        result = windows.run(body, None)
        return result.metrics["host/cpu_mean"] / 100 * result.inner  # seconds: the share depends on the machine's load

    busy = "import time; start = time.process_time(); list(iter(lambda: time.process_time() < start + 1, False))"
    assert cpu_seconds("time.sleep(0.6)") < 0.2
    assert 0.6 < cpu_seconds(busy) < 1.3
    assert 0.6 < cpu_seconds(f"import subprocess; subprocess.run([sys.executable, '-c', '{busy}'])") < 1.3


def test_memory_is_the_largest_of_the_window_with_children(windows: Windows) -> None:
    hold = "x = bytearray(300 * 2**20); time.sleep(1)"
    small = windows.run("time.sleep(0.1)", None).metrics["host/memory_max_mb"]
    own = windows.run(f"{hold}; del x", None).metrics["host/memory_max_mb"]
    child = f"import subprocess; subprocess.run([sys.executable, '-c', 'import time; {hold}'])"
    in_child = windows.run(child, None).metrics["host/memory_max_mb"]
    assert small < 400  # a process that has imported MLflow but not torch
    assert 290 < own - small < 340
    assert 290 < in_child - small < 340
