"""Measures resource use during training: CPU and memory of the host, and GPU figures from NVML if available.

MB in a metric's name means 2**20 bytes, as in `nvidia-smi` and torch.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections import defaultdict
from types import ModuleType, TracebackType
from typing import Any

import psutil

MIB = 2**20


class Telemetry:
    """Context manager that samples the visible GPUs, this process and its descendants.

    A daemon thread takes a sample every `interval` seconds; additional samples on entry and exit ensure figures for
    blocks shorter than the interval. Without NVML or a visible device the `gpu/` metrics are absent. If a device does
    not support a figure, only that figure is absent.

    The visible devices are those of `CUDA_VISIBLE_DEVICES`. Its numbers are interpreted in NVML's order, which equals
    CUDA's order on machines with a single GPU model, and on all machines under `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._gpus = _Gpus()

    def __enter__(self) -> Telemetry:
        self._gpus.open()
        _reset_torch_peak()
        self._sample(opening=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        self._gpus.close()

    def metrics(self) -> dict[str, float]:
        """Return the figures of the block. Call only after the context manager has exited.

        - `host/cpu_mean`: CPU use of this process and its children, in percent of one core (200 is two busy cores)
        - `host/memory_max_mb`: peak resident memory of this process and its children; shared pages count in each
        - `gpu/utilization_mean` (percent), `gpu/temperature_mean_c`: averaged over devices
        - `gpu/memory_mean_mb`, `gpu/memory_max_mb`, `gpu/power_mean_w`: of all processes, summed over devices
        - `gpu/energy_j`: from the devices' energy counters, or the integral of the power if a device has no counter
        - `gpu/torch_peak_mb`: peak memory allocated by torch, summed over devices; only if torch used CUDA
        """
        values = {name: [value for _, value in samples] for name, samples in self._samples.items()}
        metrics = {"host/memory_max_mb": max(values["host_memory"]) / MIB, "host/cpu_mean": self._cpu_percent()}
        for name in ("utilization_mean", "memory_mean_mb", "temperature_mean_c", "power_mean_w"):
            readings = values.get(name.split("_mean")[0])
            if readings:
                metrics[f"gpu/{name}"] = sum(readings) / len(readings)
        if "memory" in values:
            metrics["gpu/memory_max_mb"] = max(values["memory"])
        if len(values.get("energy", [])) == len(values["host_memory"]):
            metrics["gpu/energy_j"] = values["energy"][-1] - values["energy"][0]
        elif "power" in values:
            metrics["gpu/energy_j"] = _integral(self._samples["power"])
        return metrics | _torch_peak()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self, opening: bool = False) -> None:
        """Add one sample of every figure; the first omits utilisation, which covers the time before the block."""
        readings = self._gpus.read()
        if opening:
            readings.pop("utilization", None)
        readings["host_memory"], readings["host_cpu"] = _host()
        now = time.monotonic()
        for name, value in readings.items():
            self._samples[name].append((now, value))

    def _cpu_percent(self) -> float:
        (start, before), *_, (end, after) = self._samples["host_cpu"]
        # The CPU time of a child that ends without being waited for is lost, so the difference can be negative.
        return 100 * max(0.0, after - before) / (end - start)


class _Gpus:
    """The visible devices as seen by NVML; empty without NVML."""

    def __init__(self) -> None:
        self._handles: list[Any] = []
        self._nvml: ModuleType | None = None

    def open(self) -> None:
        """Load NVML and look up the visible devices."""
        import pynvml

        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = _visible(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES"))

    def close(self) -> None:
        """Shut NVML down; `read` must not be called afterwards."""
        if self._nvml is not None:
            with contextlib.suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()

    def read(self) -> dict[str, float]:
        """Return one reading of each figure over all devices, omitting figures that a device does not support.

        `utilization` (percent) and `temperature` (degrees Celsius) are means over devices. `memory` (MiB), `power`
        (watts) and `energy` (joules since an arbitrary moment) are sums.
        """
        nvml = self._nvml
        if nvml is None or not self._handles:
            return {}
        count = len(self._handles)
        getters = {
            "utilization": lambda handle: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / count,
            "temperature": lambda handle: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU) / count,
            "memory": lambda handle: nvml.nvmlDeviceGetMemoryInfo(handle).used / MIB,
            "power": lambda handle: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
            "energy": lambda handle: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000,
        }
        readings = {}
        for name, getter in getters.items():
            with contextlib.suppress(nvml.NVMLError):
                readings[name] = float(sum(getter(handle) for handle in self._handles))
        return readings


def _visible(nvml: ModuleType, selection: str | None) -> list[Any]:
    """Return the handles of the devices that CUDA would see under `CUDA_VISIBLE_DEVICES=selection`.

    As in CUDA, an entry that names no device hides all entries after it, so "" and "-1" hide everything.
    """
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if selection is None:
        return handles
    chosen = []
    for entry in selection.split(","):
        handle = _find(nvml, handles, entry.strip())
        if handle is None:
            break
        chosen.append(handle)
    return chosen


def _find(nvml: ModuleType, handles: list[Any], entry: str) -> Any | None:
    """Return the device that one entry names; None if there is none.

    An entry is an index, a prefix of a GPU's UUID, or a MIG instance's UUID.
    """
    if entry.isdecimal():
        return handles[int(entry)] if int(entry) < len(handles) else None
    if entry.startswith("GPU-"):
        return next((handle for handle in handles if nvml.nvmlDeviceGetUUID(handle).startswith(entry)), None)
    if entry.startswith("MIG-"):
        with contextlib.suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(entry)
    return None


def _host() -> tuple[int, float]:
    """Return the resident bytes and the CPU seconds so far of this process and its descendants."""
    memory, seconds = 0, 0.0
    this = psutil.Process()
    # Parents last: if a child ends between being listed and being read, its parent's `children_*` includes it.
    for process in [*reversed(this.children(recursive=True)), this]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
            memory += process.memory_info().rss
    return memory, seconds


def _integral(samples: list[tuple[float, float]]) -> float:
    """Return the integral of (time, value) samples by the trapezoidal rule."""
    pairs = itertools.pairwise(samples)
    return sum((end - start) * (before + after) / 2 for (start, before), (end, after) in pairs)


def _torch_cuda() -> Any | None:
    """Return `torch.cuda` if this process has used CUDA; importing torch here would cost seconds for a peak of zero."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def _reset_torch_peak() -> None:
    cuda = _torch_cuda()
    if cuda is not None:
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)


def _torch_peak() -> dict[str, float]:
    cuda = _torch_cuda()
    if cuda is None:
        return {}
    return {"gpu/torch_peak_mb": sum(cuda.max_memory_allocated(d) for d in range(cuda.device_count())) / MIB}
