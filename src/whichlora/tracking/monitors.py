"""Measures what MLflow's monitors of system metrics lack: this process with its children, and the visible GPUs only.

As in MLflow, metrics named `megabytes` are in units of 10**6 bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

import psutil
import pynvml
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor


class ProcessMonitor(BaseMetricsMonitor):
    """Memory and CPU use of this process and its descendants, which may be a small part of what the host does.

    Attributes:
        memory_bytes: resident memory at the last sample; shared pages count in each process.
        cpu_seconds: CPU seconds so far at the last sample.
    """

    memory_bytes = 0
    cpu_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._time: float | None = None

    def collect_metrics(self) -> None:
        """Take a sample. `process_cpu_utilization_percentage` is 200 with two busy cores; the first has none."""
        before, start = self.cpu_seconds, self._time
        self.memory_bytes, self.cpu_seconds = _process_tree()
        self._time = time.monotonic()
        self._metrics["process_memory_usage_megabytes"].append(self.memory_bytes / 1e6)
        if start is not None:
            # The CPU time of a child that ends without being waited for is lost, so the difference can be negative.
            share = max(0.0, self.cpu_seconds - before) / (self._time - start)
            self._metrics["process_cpu_utilization_percentage"].append(100 * share)

    def aggregate_metrics(self) -> dict[str, float]:
        """Return the means since the last call of `clear_metrics`."""
        return {name: round(sum(values) / len(values), 1) for name, values in self._metrics.items() if values}


class VisibleGpuMonitor(GPUMonitor):
    """MLflow's monitor of NVIDIA devices, limited to those that CUDA sees, with temperature and energy.

    `gpu_0` is the first visible device, as in CUDA. The visible devices are those of `CUDA_VISIBLE_DEVICES`. Its
    numbers are interpreted in NVML's order, which equals CUDA's order on machines with a single GPU model, and on all
    machines under `CUDA_DEVICE_ORDER=PCI_BUS_ID`. A figure that a device does not support is absent.

    Attributes:
        energy_joules: the sum of the devices' energy counters at the last sample; None if one has no counter.

    Raises:
        RuntimeError: NVML is not available.
    """

    energy_joules: float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.gpu_handles = _visible(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self.num_gpus = len(self.gpu_handles)

    def collect_metrics(self) -> None:
        """Take a sample of every visible device."""
        powers = [f"gpu_{number}_power_usage_watts" for number in range(self.num_gpus)]
        before = {name: len(self._metrics.get(name, ())) for name in powers}
        super().collect_metrics()
        energy = []
        for number, (handle, power) in enumerate(zip(self.gpu_handles, powers, strict=True)):
            if len(self._metrics.get(power, ())) == before[power]:  # MLflow drops the power of a device without a limit
                with contextlib.suppress(pynvml.NVMLError):
                    watts = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
                    self._metrics[power].append(watts)
            with contextlib.suppress(pynvml.NVMLError):
                degrees = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
                self._metrics[f"gpu_{number}_temperature_celsius"].append(degrees)
            with contextlib.suppress(pynvml.NVMLError):
                energy.append(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
        self.energy_joules = sum(energy) if energy and len(energy) == self.num_gpus else None

    def close(self) -> None:
        """Shut NVML down; take no sample afterwards."""
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _visible(selection: str | None) -> list[Any]:
    """Return the handles of the devices that CUDA would see under `CUDA_VISIBLE_DEVICES=selection`.

    As in CUDA, an entry that names no device hides all entries after it, so "" and "-1" hide everything.
    """
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    if selection is None:
        return handles
    chosen = []
    for entry in selection.split(","):
        handle = _find(handles, entry.strip())
        if handle is None:
            break
        chosen.append(handle)
    return chosen


def _find(handles: list[Any], entry: str) -> Any | None:
    """Return the device that one entry names; None if there is none.

    An entry is an index, a prefix of a GPU's UUID, or a MIG instance's UUID.
    """
    if entry.isdecimal():
        return handles[int(entry)] if int(entry) < len(handles) else None
    if entry.startswith("GPU-"):
        return next((handle for handle in handles if pynvml.nvmlDeviceGetUUID(handle).startswith(entry)), None)
    if entry.startswith("MIG-"):
        with contextlib.suppress(pynvml.NVMLError):
            return pynvml.nvmlDeviceGetHandleByUUID(entry)
    return None


def _process_tree() -> tuple[int, float]:
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
