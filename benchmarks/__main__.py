"""How long the same work takes here and with the usual tools, in turns on this machine: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks import table
from benchmarks.harness import CLOCKS, Bench, Block, Result
from benchmarks.workers import ROOT

AT_REST = 10.0
"""Per cent of the processor that others may use, before anything is measured, on a machine called at rest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write results.json. Returns 1 if two sides that should be equal are not."""
    given = _parser().parse_args(arguments)
    busy = psutil.cpu_percent(interval=3)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)  # before torch is imported, which the rows do
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    import torch

    from benchmarks import machine
    from whichlora.models.loading import locate
    from whichlora.models.quiet import quiet

    torch.set_num_threads(given.threads)
    quiet()
    names = [row.name for block in blocks_of("fp32") for row in block.rows]
    only = given.only.split(",") if given.only else []
    unknown = [name for name in only if name not in names]
    if unknown:
        _parser().error(f"only={unknown[0]}: allowed are {', '.join(names)}")
    peer = given.peer_python if Path(given.peer_python).is_file() else None
    peak = machine.peak(given.threads)
    chosen, skipped = rows_of(only, peak, peer)
    minutes = sum(block.minutes for block, _ in chosen) * given.pairs / 5
    print(f"About {minutes:.0f} minutes on two cores at rest.", file=sys.stderr)

    began = time.monotonic()
    results: list[Result] = []
    for block, rows in chosen:
        print(f"{', '.join(rows)}: about {block.minutes * given.pairs / 5:.0f} minutes", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(
                model=given.model,
                place=locate(given.model).name_or_path,
                pairs=given.pairs,
                steps=given.steps,
                items=given.items,
                answers=given.answers,
                probed=given.probed,
                runs=given.runs,
                threads=given.threads,
                peer_python=peer,
                scratch=Path(scratch),
            )
            results += block.measure(bench, rows)
    record = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(peer) | {"threads": given.threads, "busy_before": busy},
        "clock": given.clock,
        "provisional": given.clock != "wall" or busy > AT_REST or given.pairs < 5,
        "model": given.model,
        "minutes": (time.monotonic() - began) / 60,
        "peak_gflops": peak,
        "rows": [result.record(given.clock) for result in results],
        "skipped": skipped,
    }
    _write(record, given)
    differing = [result for result in results if result.equal and not result.equal.holds]
    for result in differing:
        assert result.equal
        print(
            f"error: {result.row.name}: not the same work: {result.equal.what}, {result.equal.value:g}", file=sys.stderr
        )
    return 1 if differing else 0


def blocks_of(quick: str) -> list[Block]:
    """Return all there is to measure where products are faster in the precision `quick`."""
    from benchmarks import grid, probing, scoring, start, training

    return [*training.blocks(quick), *scoring.BLOCKS, *probing.BLOCKS, *grid.blocks(quick), *start.BLOCKS]


def rows_of(
    only: Sequence[str], peak: Mapping[str, Mapping[str, float]], peer: str | None
) -> tuple[list[tuple[Block, list[str]]], dict[str, str]]:
    """Return what is measured, each block with its rows' names, and which rows are not and why; `only` may be empty.

    Where products take longer in bf16 than in fp32 nobody would choose bf16, and some rows would take hours.
    """
    from benchmarks import training

    speeds = {name: by["wall"] for name, by in peak.items()}
    quick = max(speeds, key=speeds.__getitem__)
    blocks = blocks_of(quick)
    rows = [row for block in blocks for row in block.rows]
    skipped = {}
    if quick == "fp32" and not only:
        slower = f"products run at {speeds['bf16']:.0f} GFLOP/s in bf16 here, at {speeds['fp32']:.0f} in fp32"
        skipped = {row.name: slower for row in rows if row.precision == "bf16"}
    if not peer:
        skipped |= dict.fromkeys(training.SFT, "no environment with TRL: see `make bench`")
    measured = {name for name in only or [row.name for row in rows] if name not in skipped}
    chosen = [(block, [row.name for row in block.rows if row.name in measured]) for block in blocks]
    return [(block, own) for block, own in chosen if own], skipped


def _write(record: dict[str, object], given: argparse.Namespace) -> None:
    if given.output or not given.only:
        Path(given.output or table.HERE / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    if not given.output and not given.only:
        table.main()
    print(table.markdown(record))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="rows to measure, joined by commas; all of them if not given")
    parser.add_argument("--pairs", type=int, default=5, help="turns of each side")
    parser.add_argument("--model", default="smollm2-135m", help="packaged, a folder or a hub id")
    parser.add_argument("--output", help="default: benchmarks/results.json and README.md; nothing with --only")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of 16 items in a turn of training")
    parser.add_argument("--items", type=int, default=96, help="labelled items in a turn of scoring")
    parser.add_argument("--answers", type=int, default=24, help="questions in a turn")
    parser.add_argument("--probed", type=int, default=20, help="items in a turn of the probe")
    parser.add_argument("--runs", type=int, default=5, help="of the grid's 12 to measure")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor seconds, on a busy machine")
    default = str(ROOT / ".venv-bench" / "bin" / "python")
    parser.add_argument("--peer_python", default=default, help="interpreter of the environment with TRL")
    return parser


if __name__ == "__main__":
    sys.exit(main())
