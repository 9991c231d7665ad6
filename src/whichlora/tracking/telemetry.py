"""Measures resource use during training: system metrics as curves in the run, and figures of the whole window.

MB in a figure's name means 2**20 bytes, as in `nvidia-smi` and torch; MLflow's `megabytes` are 10**6 bytes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from whichlora.errors import in_a_line
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.system_metrics import Sample, SystemMetrics

MIB = 2**20


class Telemetry:
    """Context manager that measures the host, the visible GPUs, and this process with its descendants.

    The curves are logged to the run under MLflow's names (`system/*`); `metrics` returns figures of the same samples,
    one per second unless MLflow's variable sets another interval. The figures need all samples but keep none of them.
    Without NVML or a visible device the `gpu/` figures are absent. If a device does not support a figure, only that
    figure is absent.
    """

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._monitor: SystemMetrics | None = None
        self._figures: dict[str, _Figure] = {}

    def __enter__(self) -> Telemetry:
        _reset_torch_peak()
        try:
            self._monitor = SystemMetrics(self._log, self._add)
            self._monitor.start()
        except Exception as error:  # such as a host that hides its network, or a bad value of MLflow's variables
            self._monitor = None
            print(f"warning: no system metrics: {in_a_line(error)}", file=sys.stderr)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._monitor is not None:
            self._monitor.finish()

    def metrics(self) -> dict[str, float]:
        """Return the figures of the block. Call only after the context manager has exited.

        - `host/cpu_mean`: CPU use of this process and its children, in percent of one core (200 is two busy cores)
        - `host/memory_max_mb`: peak resident memory of this process and its children; shared pages count in each
        - `gpu/utilization_mean` (percent), `gpu/temperature_mean_c`: averaged over devices
        - `gpu/memory_mean_mb`, `gpu/memory_max_mb`, `gpu/power_mean_w`: of all processes, summed over devices
        - `gpu/energy_j`: from the devices' energy counters, or the integral of the power if a device has no counter
        - `gpu/torch_peak_mb`: peak memory allocated by torch, summed over devices; only if torch used CUDA
        """
        figures = self._figures
        metrics = {}
        if "process_memory" in figures:
            window = figures["process_memory"]
            cpu = figures["process_cpu"]
            # The CPU time of a child that ends without being waited for is lost, so the difference can be negative.
            metrics["host/cpu_mean"] = 100 * max(0.0, cpu.last - cpu.first) / (cpu.end - cpu.start)
            metrics["host/memory_max_mb"] = window.maximum / MIB
            energy = figures.get("energy")
            if energy is not None and (energy.start, energy.end) == (window.start, window.end):
                metrics["gpu/energy_j"] = energy.last - energy.first
            elif "power" in figures:
                metrics["gpu/energy_j"] = figures["power"].integral
        for name, metric in _MEANS.items():
            if name in figures:
                metrics[metric] = figures[name].mean
        if "memory" in figures:
            metrics["gpu/memory_max_mb"] = figures["memory"].maximum
        return metrics | _torch_peak()

    def _add(self, time: float, sample: Sample) -> None:
        """Add a sample of the monitor to the figures."""
        assert self._monitor is not None
        process, gpus = self._monitor.process, self._monitor.gpus
        readings = {"process_memory": float(process.memory_bytes), "process_cpu": process.cpu_seconds}
        if gpus is not None:
            for name, (part, divisor) in _DEVICE_READINGS.items():
                devices = [sample.get(f"gpu_{number}_{part}") for number in range(gpus.num_gpus)]
                values = [value for value in devices if value is not None]
                if values and len(values) == len(devices):
                    readings[name] = sum(values) / (divisor or len(values))
            if gpus.energy_joules is not None:
                readings["energy"] = gpus.energy_joules
        for name, value in readings.items():
            if name in self._figures:
                self._figures[name].add(time, value, looks_back=name == "utilization")
            else:
                self._figures[name] = _Figure.of(time, value)


_MEANS = {
    "utilization": "gpu/utilization_mean",
    "memory": "gpu/memory_mean_mb",
    "temperature": "gpu/temperature_mean_c",
    "power": "gpu/power_mean_w",
}
_DEVICE_READINGS = {
    "utilization": ("utilization_percentage", None),
    "temperature": ("temperature_celsius", None),
    "memory": ("memory_usage_megabytes", MIB / 1e6),
    "power": ("power_usage_watts", 1),
}
"""The metrics of a device that are added up over devices and divided; None divides by the number of devices."""


@dataclass
class _Figure:
    """A reading over time, in seconds of the monotonic clock."""

    start: float
    first: float
    end: float
    last: float
    maximum: float
    integral: float = 0.0

    @classmethod
    def of(cls, time: float, value: float) -> _Figure:
        """Return the figure after its first reading."""
        return cls(start=time, first=value, end=time, last=value, maximum=value)

    def add(self, time: float, value: float, *, looks_back: bool) -> None:
        """Add a reading; `looks_back` if it stands for the time before it, as utilisation does.

        NVML's utilisation covers the last sixth of a second to second, depending on the device; with a longer interval
        between samples it stands for the rest of the interval too.
        """
        self.integral += (time - self.end) * (value if looks_back else (self.last + value) / 2)
        self.end, self.last, self.maximum = time, value, max(self.maximum, value)

    @property
    def mean(self) -> float:
        """The mean over time; samples are not evenly spaced."""
        return self.integral / (self.end - self.start) if self.end > self.start else self.last


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
