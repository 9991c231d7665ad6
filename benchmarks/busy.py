"""Measures a training step beside busy processes, and what this project's waiting threads cost at rest."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from benchmarks.harness import CLOCKS, Bench, Block, Result, Row, Seconds, alternate
from benchmarks.training import BATCH, OURS, prepare
from benchmarks.workers import Worker, running_worker
from whichlora import cores

BUSY = Row(
    name="busy",
    work="a step beside two busy processes, fp32",
    against="the same step at rest",
    goal=2.5,
    less=True,
)
WAITING = Row(
    name="waiting",
    work="a step at rest, fp32",
    against="the same step with OpenMP's own waiting, which spins",
    goal=0.98,
)
LOOPS = 2
_LOOP = "while True: pass"


def measure(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Take one step of 16 items in turn at rest and beside busy loops, with this project's waiting and OpenMP's own."""
    inputs = prepare(bench, BATCH) | {"precision": "fp32"}
    ways: Mapping[str, Mapping[str, str]] = {"ours": cores.waiting_variables(), "spinning": {}}
    with contextlib.ExitStack() as stack:
        sides: dict[str, Callable[[], Seconds]] = {}
        for way, variables in ways.items():
            log = bench.scratch / f"{way}.log"
            options: dict[str, Any] = {"threads": bench.threads, "log": log, "variables": variables}
            worker = stack.enter_context(running_worker(OURS, **options))
            worker.ask("load", **inputs)
            _step(worker)  # a warm-up
            sides |= {f"{way} at rest": partial(_step, worker), f"{way} busy": partial(_busy_step, worker)}
        measured = alternate("busy", sides, bench.pairs)
    spinning = {state: median(measured[f"spinning {state}"]["wall"]) for state in ("at rest", "busy")}
    note = f"With OpenMP's own waiting: {spinning['busy'] / spinning['at rest']:.1f} times the step at rest."
    results = [
        Result(row=BUSY, ours=measured["ours busy"], theirs=measured["ours at rest"], notes=[note]),
        Result(row=WAITING, ours=measured["ours at rest"], theirs=measured["spinning at rest"]),
    ]
    return [result for result in results if result.row.name in wanted]


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep `count` processes busy within this context."""
    loops = [subprocess.Popen([sys.executable, "-c", _LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _busy_step(worker: Worker) -> Seconds:
    with busy_loops(LOOPS):
        return _step(worker)


def _step(worker: Worker) -> Seconds:
    answer = worker.ask("train", count=BATCH, batch_size=BATCH)
    return {clock: float(answer[clock]) for clock in CLOCKS}


BLOCKS = [Block(rows=[BUSY, WAITING], minutes=3, measure=measure)]
