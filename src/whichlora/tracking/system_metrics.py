"""Logs system metrics, as MLflow's monitor names and measures them, over one window of one run."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
from mlflow.entities import Metric
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING as ENABLED
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING as SAMPLES_PER_POINT
from mlflow.environment_variables import MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL as SAMPLING_INTERVAL
from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from whichlora.errors import LostLeaseError, in_a_line
from whichlora.tracking.monitors import ProcessMonitor, VisibleGpuMonitor
from whichlora.tracking.run_log import RunLog

_POINTS_PER_ELAPSED = 60
"""A point of a curve is the mean over the last 60th of the time so far, so a run of ten hours has some 450 points."""
_LONGEST_POINT = 600.0
"""Longest time that a point stands for, in seconds: until it ends, its samples are kept in memory only."""
_FIRST_SECONDS, _SECONDS = 0.1, 1.0
"""Shortest and longest time between samples. The longest does not grow with the length of the run, or long runs would
miss short peaks that short runs find."""
_WRITE_SECONDS = 10.0
"""Shortest time between two writes to the run."""
_LAST_WRITE_SECONDS = 10.0
"""Time that the end of a window may wait for a tracking server that does not answer."""

logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
"""Its messages announce starts and ends, and repeat at each sample what a device does not support."""

Sample = dict[str, float]


def pace(elapsed: float) -> tuple[float, int]:
    """Return the seconds until the next sample and the number of samples per point, `elapsed` seconds after the start.

    Only the points of the curves become fewer in a long run, not the samples. MLflow's variables fix either of them.
    """
    fixed = SAMPLING_INTERVAL.get()
    interval = max(fixed or min(elapsed, _SECONDS), _FIRST_SECONDS)
    return interval, SAMPLES_PER_POINT.get() or (1 if fixed else max(1, round(_point_seconds(elapsed) / interval)))


def _point_seconds(elapsed: float) -> float:
    return min(elapsed / _POINTS_PER_ELAPSED, _LONGEST_POINT)


class SystemMetrics(SystemMetricsMonitor):
    """MLflow's monitor, with curves for short and for long runs, and which a lost server does not stop.

    Samples are taken in one thread and written to the run in another, a batch at a time, continuing the steps of an
    earlier attempt. What cannot be written is kept for the next batch; once the run belongs to another process nothing
    is. MLflow's environment variables for the interval, the samples per point, the node and switching it off apply.

    Args:
        log: the log of the run.
        on_sample: receives each sample and its time on the monotonic clock. The first, taken by `start`, has no
            utilisation, which would be that of the time before.
    """

    def __init__(self, log: RunLog, on_sample: Callable[[float, Sample], None]) -> None:
        super().__init__(log.run_id)
        self.process = ProcessMonitor()
        self.monitors.append(self.process)
        self.gpus = next((monitor for monitor in self.monitors if isinstance(monitor, VisibleGpuMonitor)), None)
        self._log, self._on_sample = log, on_sample
        self._first_step: int | None = None
        self._pending: list[tuple[int, int, dict[str, float]]] = []
        self._problem: Exception | None = None
        self._wanted = not ENABLED.is_set() or ENABLED.get()
        self._complete = threading.Event()
        self._writer = threading.Thread(target=self._write_all, name="system-metrics-writer", daemon=True)

    def start(self) -> None:
        """Take the first sample, and start the threads."""
        self._start = time.monotonic()
        sample = self.collect_metrics()
        for monitor in self.monitors:
            for name in [name for name in monitor.metrics if "utilization" in name]:
                del monitor.metrics[name]
                sample.pop(name, None)
        self._on_sample(self._start, sample)
        self.publish_metrics(self.aggregate_metrics())
        self._process = threading.Thread(target=self.monitor, name="system-metrics", daemon=True)
        self._process.start()
        self._writer.start()

    def monitor(self) -> None:
        """Take samples, and a point for every few of them, until `finish` is called; the last is taken then."""
        psutil.cpu_percent()  # the first value in each thread is meaningless
        samples, last = 0, False
        try:
            while not last:
                interval, per_point = pace(time.monotonic() - self._start)
                last = self._shutdown_event.wait(interval)
                self._on_sample(time.monotonic(), self.collect_metrics())
                samples += 1
                if last or samples >= per_point:
                    self.publish_metrics(self.aggregate_metrics())
                    samples = 0
        finally:
            self._complete.set()

    def collect_metrics(self) -> Sample:
        """Take a sample of every monitor and return it; a monitor that fails leaves its figures out."""
        sample: Sample = {}
        for monitor in self.monitors:
            before = {name: len(values) for name, values in monitor.metrics.items() if isinstance(values, list)}
            with contextlib.suppress(Exception):
                monitor.collect_metrics()
            for name, values in monitor.metrics.items():
                if isinstance(values, list) and len(values) > before.get(name, 0):
                    sample[name] = float(values[-1])
        return sample

    def publish_metrics(self, metrics: dict[str, float]) -> None:
        """Keep a point of the curves to be written with the next batch."""
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        point = {prefix + name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        if self._wanted:
            self._pending.append((self._logging_step, int(time.time() * 1000), point))
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()

    def finish(self) -> None:
        """Take the last sample, write what is left, and end the threads."""
        if self._process is None:
            return
        self._shutdown_event.set()
        self._process.join()
        self._writer.join(_LAST_WRITE_SECONDS)
        if self.gpus is not None:
            self.gpus.close()
        if self._pending:
            reason = self._problem or f"no answer within {_LAST_WRITE_SECONDS:g} s"
            lost = f"{len(self._pending)} points of system metrics were not logged"
            print(f"warning: {lost}: {in_a_line(reason)}", file=sys.stderr)
        self._process = None

    def _write_all(self) -> None:
        complete = False
        while not complete:
            elapsed = time.monotonic() - self._start
            complete = self._complete.wait(max(_WRITE_SECONDS, _point_seconds(elapsed)))
            try:
                self._write()
            except LostLeaseError:
                self._wanted = False
                self._pending.clear()
            except Exception as error:  # the next batch has these points too
                self._problem = error

    def _write(self) -> None:
        points = list(self._pending)
        if not points:
            return
        if self._first_step is None:
            self._first_step = self._log.last_step(self._metrics_prefix) + 1
        self._log.points(
            [
                Metric(name, value, timestamp, self._first_step + step)
                for step, timestamp, point in points
                for name, value in point.items()
            ]
        )
        del self._pending[: len(points)]

    def _initialize_gpu_monitor(self) -> BaseMetricsMonitor | None:
        try:
            return VisibleGpuMonitor()
        except Exception:
            monitor: Any = super()._initialize_gpu_monitor()  # AMD devices
            return monitor
