"""A grid of runs in one process of this project, beside a shell loop that starts a script for every run."""

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
"""A sixth of the packaged tasks' default sizes, and the least validation there may be: the scripts have none."""
WHOLE = 12
"""Runs of the grid, over which what the one process does but once is divided; fewer of them are measured."""


def cells(count: int, precision: str) -> list[dict[str, Any]]:
    """Return options of so many runs, each with an adapter of its own."""
    return [{**SIZES, "precision": precision, "seed": 1 + n // 2, "tl_ratio": (0.25, 0.5)[n % 2]} for n in range(count)]


def measure(bench: Bench, wanted: Sequence[str], row: Row) -> list[Result]:
    """Take turns run by run. What the one process does but once is added to its runs in equal parts."""
    taken: dict[str, dict[str, list[float]]] = {side: {c: [] for c in CLOCKS} for side in ("ours", "theirs")}
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
            data = _data(bench, cell, bench.scratch / f"run-{number}.json")
            sides = [lambda n=number: worker.ask("run", number=n), lambda d=data, c=cell: _script(bench, d, c)]  # type: ignore[misc]
            seconds: dict[str, dict[str, float]] = {}
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                seconds[("ours", "theirs")[side]] = sides[side]()
            for clock in CLOCKS:
                seconds["ours"][clock] += start[clock] / WHOLE
                for side, values in taken.items():
                    values[clock].append(seconds[side][clock])
            shown = ", ".join(f"{side} {s['wall']:.1f}" for side, s in seconds.items())
            print(f"  grid {number + 1}/{len(chosen)}: {shown} s", file=sys.stderr, flush=True)
    notes = [
        f"{len(chosen)} of the {WHOLE} runs, in turns. What the one process does but once, to start, to load and to "
        f"score the base model, took {start['wall']:.0f} s; each of its runs has a {WHOLE}th of it. Ours also "
        "validates, saves the adapter and tracks; the scripts do not."
    ]
    return [Result(row=row, ours=taken["ours"], theirs=taken["theirs"], per="run", notes=notes)]


def _script(bench: Bench, data: Path, cell: Mapping[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.peers.script", "--model", bench.place, "--data", str(data)]
    command += ["--seed", str(cell["seed"]), "--precision", cell["precision"]]
    with Stopwatch() as watch:
        subprocess.run(command, cwd=ROOT, env=worker_environment(bench.threads), check=True, capture_output=True)
    return watch.seconds()


def _data(bench: Bench, cell: dict[str, Any], path: Path) -> Path:
    """Write the texts of the same items that this project's run trains on and is scored on."""
    plan = plan_of(bench.model, **cell)

    def texts(chosen: Sequence[Any]) -> list[dict[str, str]]:
        return [{"prompt": plan.task.prompt(item), "answer": plan.task.answer(item)} for item in chosen]

    test = {role: texts(part) for role, part in plan.mixture.test.items()}
    content = {"train": texts(plan.mixture.train), "test": test, "tokens": plan.task.answer_tokens}
    path.write_text(json.dumps(content))
    return path


def blocks(quick: str) -> list[Block]:
    """Return what is measured where products are faster in the precision `quick`: in it both sides train and score."""
    narrow = ", `bf16=True`" if quick == "bf16" else ""
    row = Row(
        name="grid",
        work=f"a grid of 12 runs of 100 items, {quick}",
        against=f"a shell loop of Trainer + PEFT scripts{narrow}, scored by `generate()`",
        goal=3,
        precision=quick,
        total=True,
    )
    return [Block(rows=[row], minutes=5.5, measure=partial(measure, row=row))]
