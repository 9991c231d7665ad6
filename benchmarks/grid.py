"""Compares a grid of runs in one process of this project with a shell loop that starts a script for each run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import CLOCKS, Bench, Block, Result, Row
from benchmarks.ours import plan_of
from benchmarks.workers import ROOT, Stopwatch, running_worker, worker_environment

SIZES = {"train_size": 100, "validation_size": 1, "test_size": 50, "batch_size": 16}
"""A sixth of the packaged tasks' default sizes, with minimal validation, because the scripts do not validate."""
N_RUNS = 12
"""Number of runs in the whole grid, over which one-off costs are spread; fewer are measured."""


def cells(count: int, precision: str) -> list[dict[str, Any]]:
    """Return the options of `count` runs, each of which trains its own adapter."""
    return [{**SIZES, "precision": precision, "seed": 1 + n // 2, "tl_ratio": (0.25, 0.5)[n % 2]} for n in range(count)]


def measure(bench: Bench, wanted: Sequence[str], row: Row) -> list[Result]:
    """Measure both sides alternately, run by run; this project's one-off costs are spread over its runs."""
    measured: dict[str, dict[str, list[float]]] = {side: {c: [] for c in CLOCKS} for side in ("ours", "theirs")}
    chosen = cells(bench.runs, row.precision)
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{bench.scratch / 'grid.db'}",
        "WHICHLORA_WORK": str(bench.scratch / "grid-work"),
    }
    began = time.perf_counter()
    log = bench.scratch / "grid.log"
    with running_worker("benchmarks.runs", threads=bench.threads, log=log, variables=variables) as worker:
        ready = worker.ask("load", model=bench.model, cells=chosen)
        start = {"wall": time.perf_counter() - began, "cpu": ready["cpu_total"]}
        for number, cell in enumerate(chosen):
            data = _write_data(bench, cell, bench.scratch / f"run-{number}.json")
            sides = [lambda n=number: worker.ask("run", number=n), lambda d=data, c=cell: _script(bench, d, c)]  # type: ignore[misc]
            seconds: dict[str, dict[str, float]] = {}
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                seconds[("ours", "theirs")[side]] = sides[side]()
            for clock in CLOCKS:
                seconds["ours"][clock] += start[clock] / N_RUNS
                for side, values in measured.items():
                    values[clock].append(seconds[side][clock])
            latest = ", ".join(f"{side} {s['wall']:.1f}" for side, s in seconds.items())
            print(f"  grid {number + 1}/{len(chosen)}: {latest} s", file=sys.stderr, flush=True)
    notes = [
        f"{len(chosen)} of the {N_RUNS} runs, measured alternately. The single process starts, loads and scores the "
        f"base model once, which took {start['wall']:.0f} s; each of its runs includes a {N_RUNS}th of that. Ours also "
        "validates, saves the adapter and tracks; the scripts do not."
    ]
    return [Result(row=row, ours=measured["ours"], theirs=measured["theirs"], per="run", notes=notes)]


def _script(bench: Bench, data: Path, cell: Mapping[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peers.script", "--model", bench.folder, "--data", str(data)]
    command += ["--seed", str(cell["seed"]), "--precision", cell["precision"]]
    with Stopwatch() as watch:
        subprocess.run(command, cwd=ROOT, env=worker_environment(bench.threads), check=True, capture_output=True)
    return watch.seconds()


def _write_data(bench: Bench, cell: dict[str, Any], path: Path) -> Path:
    """Write the texts of the run's training and test items, for the script."""
    plan = plan_of(bench.model, **cell)

    def texts(chosen: Sequence[Any]) -> list[dict[str, str]]:
        return [{"prompt": plan.task.prompt(item), "answer": plan.task.answer(item)} for item in chosen]

    test = {role: texts(test.items) for role, test in plan.tests.items()}
    content = {"train": texts(plan.mixture.train), "test": test, "tokens": plan.task.answer_tokens}
    path.write_text(json.dumps(content))
    return path


def blocks(fast_precision: str) -> list[Block]:
    """Return the grid's block; both sides train and score in `fast_precision`."""
    bf16 = ", `bf16=True`" if fast_precision == "bf16" else ""
    row = Row(
        name="grid",
        work=f"a grid of 12 runs of 100 items, {fast_precision}",
        against=f"a shell loop of Trainer + PEFT scripts{bf16}, scored by `generate()`",
        goal=3,
        precision=fast_precision,
        total=True,
    )
    return [Block(rows=[row], minutes=5.5, measure=partial(measure, row=row))]
