"""Telemetry with the real NVML bindings and a stub library, and on the host alone.

Each test runs its window in a separate process, because the bindings load `libnvidia-ml.so.1` once per process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Prints the metrics, and the seconds from inside and from outside the window.
WINDOW = """
import json, sys, time
from whichlora.tracking.telemetry import Telemetry
outer = time.monotonic()
try:
    with Telemetry(interval={interval}) as window:
        inner = time.monotonic()
        {body}
        inner = time.monotonic() - inner
except ZeroDivisionError:
    inner = 0
outer = time.monotonic() - outer
import threading
print(json.dumps([window.metrics(), inner, outer, threading.active_count(), "torch" in sys.modules]))
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


class Result:
    """The parsed output of one window."""

    def __init__(self, output: str) -> None:
        self.metrics, self.inner, self.outer, self.threads, self.imported_torch = json.loads(output)


def run_window(body: str, library: Path | None, interval: float = 60, **environment: str) -> Result:
    """Run `body` in a window of a new process that loads NVML from the folder `library`; None hides NVML."""
    names = ("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    if library is None:
        environment.setdefault("CUDA_VISIBLE_DEVICES", "")  # the machine that runs the tests may have a GPU
    else:
        environment["LD_LIBRARY_PATH"] = str(library)
    done = subprocess.run(
        [sys.executable, "-c", WINDOW.format(body=body, interval=interval)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return Result(done.stdout)


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


def test_a_window_shorter_than_the_interval_has_every_figure(stub: Path) -> None:
    result = run_window("time.sleep(0.2)", stub)
    metrics = result.metrics
    assert set(metrics) == GPU_METRICS | HOST_METRICS
    assert metrics["gpu/utilization_mean"] == pytest.approx(60)  # the closing sample alone: 50 and 70
    assert metrics["gpu/temperature_mean_c"] == pytest.approx(55)
    assert metrics["gpu/power_mean_w"] == pytest.approx(250)
    assert metrics["gpu/memory_mean_mb"] == pytest.approx(3100)  # 3000 at the opening, 3200 at the close
    assert metrics["gpu/memory_max_mb"] == pytest.approx(3200)
    assert 1000 * result.inner - 0.01 <= metrics["gpu/energy_j"] <= 1000 * result.outer  # the counter is in mJ


def test_samples_are_taken_during_the_window(stub: Path) -> None:
    metrics = run_window("time.sleep(1)", stub, interval=0.1, STUB_NVML_DEVICES="1").metrics
    samples = (metrics["gpu/memory_max_mb"] - 1000) / 100 + 1  # each reading of the stub's memory adds 100 MiB
    assert 6 <= samples <= 12
    assert metrics["gpu/memory_mean_mb"] == pytest.approx((1000 + metrics["gpu/memory_max_mb"]) / 2)


@pytest.mark.parametrize("unsupported", ["energy0,energy1", "energy1"])
def test_energy_without_a_counter_is_the_integral_of_the_power(stub: Path, unsupported: str) -> None:
    result = run_window("time.sleep(0.3)", stub, interval=0.1, STUB_NVML_UNSUPPORTED=unsupported)
    assert 250 * result.inner - 0.01 <= result.metrics["gpu/energy_j"] <= 250 * result.outer


@pytest.mark.parametrize(
    ("unsupported", "absent"),
    [
        ("power0", {"gpu/power_mean_w"}),
        ("memory1", {"gpu/memory_mean_mb", "gpu/memory_max_mb"}),
        ("utilisation0,utilisation1", {"gpu/utilization_mean"}),
        ("temperature1", {"gpu/temperature_mean_c"}),
        ("power1,energy1", {"gpu/power_mean_w", "gpu/energy_j"}),
    ],
)
def test_an_unsupported_reading_drops_that_figure_only(stub: Path, unsupported: str, absent: set[str]) -> None:
    metrics = run_window("pass", stub, STUB_NVML_UNSUPPORTED=unsupported).metrics
    assert set(metrics) == (GPU_METRICS | HOST_METRICS) - absent


@pytest.mark.parametrize(
    ("selection", "watts"),
    [
        ("0", 100),
        ("1", 150),
        (" 1, 0", 250),
        ("GPU-b0000000-0000-0000-0000-000000000000", 150),
        ("GPU-a", 100),
        ("MIG-1", 150),
        ("1,7,0", 150),  # what follows an entry that names no device is hidden, as in CUDA
        ("", None),
        ("-1", None),
        ("GPU-f", None),
        ("MIG-7", None),
        ("NoDevFiles", None),
    ],
)
def test_cuda_visible_devices_selects(stub: Path, selection: str, watts: float | None) -> None:
    metrics = run_window("pass", stub, CUDA_VISIBLE_DEVICES=selection).metrics
    assert metrics.get("gpu/power_mean_w") == watts
    assert set(metrics) == HOST_METRICS | (GPU_METRICS if watts else set())


@pytest.mark.parametrize("library_of", ["no stub", "stub without devices", "broken library"])
def test_without_a_gpu_only_the_host_is_measured(
    library_of: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    environment = {}
    library: Path | None = None
    if library_of == "stub without devices":
        library, environment = request.getfixturevalue("stub"), {"STUB_NVML_DEVICES": "0"}
    if library_of == "broken library":
        library = tmp_path
        (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    result = run_window("time.sleep(0.1)", library, **environment)
    assert set(result.metrics) == HOST_METRICS
    assert not result.imported_torch


def test_torch_peak_is_summed_over_devices_and_absent_where_cuda_was_not_used() -> None:
    cuda = "is_initialized=lambda: True, device_count=lambda: 2, max_memory_allocated=lambda device: 2**20 << device"
    fake = f"from types import SimpleNamespace as N; sys.modules['torch'] = N(cuda=N({cuda}))"
    assert run_window(fake, None).metrics["gpu/torch_peak_mb"] == 3
    assert set(run_window("import torch", None).metrics) == HOST_METRICS


def test_an_exception_ends_the_window_with_its_figures(stub: Path) -> None:
    result = run_window("1 / 0", stub, interval=0.01)
    assert set(result.metrics) == GPU_METRICS | HOST_METRICS
    assert result.threads == 1


def test_an_open_window_does_not_keep_the_process_alive() -> None:
    program = "from whichlora.tracking.telemetry import Telemetry; Telemetry(0.01).__enter__()"
    subprocess.run([sys.executable, "-c", program], timeout=20, check=True)


def test_cpu_counts_this_process_and_its_children() -> None:
    def cpu_seconds(body: str) -> float:
        result = run_window(body, None)
        return result.metrics["host/cpu_mean"] / 100 * result.inner  # seconds: the share depends on the machine's load

    busy = "import time; list(iter(lambda: time.process_time() < 1, False))"
    assert cpu_seconds("time.sleep(0.6)") < 0.2
    assert 0.6 < cpu_seconds(busy) < 1.3
    assert 0.6 < cpu_seconds(f"import subprocess; subprocess.run([sys.executable, '-c', '{busy}'])") < 1.3


def test_memory_is_the_largest_of_the_window_with_children() -> None:
    hold = "x = bytearray(300 * 2**20); time.sleep(1)"
    small = run_window("time.sleep(0.1)", None).metrics["host/memory_max_mb"]
    own = run_window(f"{hold}; del x", None, interval=0.1).metrics["host/memory_max_mb"]
    child = f"import subprocess; subprocess.run([sys.executable, '-c', 'import time; {hold}'])"
    in_child = run_window(child, None, interval=0.1).metrics["host/memory_max_mb"]
    assert small < 200
    assert 290 < own - small < 340
    assert 290 < in_child - small < 340
