"""Compares this project's speed with that of the usual tools on the same work: `python -m benchmarks`."""

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

IDLE_PERCENT = 10.0
"""CPU use in percent before the measurements, up to which the machine counts as idle."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the rows and write results.json. Return 1 if the two sides of a row did not do the same work."""
    args = _parser().parse_args(arguments)
    busy = psutil.cpu_percent(interval=3)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # must be set before torch is imported
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    import torch

    from benchmarks import machine
    from whichlora.models.loading import locate
    from whichlora.models.quiet import quiet

    torch.set_num_threads(args.threads)
    quiet()
    names = [row.name for block in all_blocks("fp32") for row in block.rows]
    only = args.only.split(",") if args.only else []
    unknown = [name for name in only if name not in names]
    if unknown:
        _parser().error(f"only={unknown[0]}: allowed are {', '.join(names)}")
    peer = args.peer_python if Path(args.peer_python).is_file() else None
    peak = machine.peak(args.threads)
    chosen, skipped = choose_rows(only, peak, peer)
    minutes = sum(block.minutes for block, _ in chosen) * args.pairs / 5
    print(f"This takes about {minutes:.0f} minutes on two idle cores.", file=sys.stderr)

    began = time.monotonic()
    results: list[Result] = []
    for block, rows in chosen:
        print(f"{', '.join(rows)}: about {block.minutes * args.pairs / 5:.0f} minutes", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(
                model=args.model,
                folder=locate(args.model).name_or_path,
                pairs=args.pairs,
                steps=args.steps,
                items=args.items,
                answers=args.answers,
                probed=args.probed,
                runs=args.runs,
                threads=args.threads,
                peer_python=peer,
                scratch=Path(scratch),
            )
            results += block.measure(bench, rows)
    record = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine.describe(peer) | {"threads": args.threads, "busy_before": busy},
        "clock": args.clock,
        "provisional": args.clock != "wall" or busy > IDLE_PERCENT or args.pairs < 5,
        "model": args.model,
        "minutes": (time.monotonic() - began) / 60,
        "peak_gflops": peak,
        "rows": [result.record(args.clock) for result in results],
        "skipped": skipped,
    }
    _write(record, args)
    differing = [result for result in results if result.equal and not result.equal.holds]
    for result in differing:
        assert result.equal
        print(
            f"error: {result.row.name}: not the same work: {result.equal.what} ({result.equal.value:g})",
            file=sys.stderr,
        )
    return 1 if differing else 0


def all_blocks(fast_precision: str) -> list[Block]:
    """Return all blocks, for a machine whose matrix products are faster in `fast_precision`."""
    from benchmarks import busy, grid, probing, scoring, start, training

    return [
        *training.blocks(fast_precision),
        *scoring.BLOCKS,
        *probing.BLOCKS,
        *grid.blocks(fast_precision),
        *start.BLOCKS,
        *busy.BLOCKS,
    ]


def choose_rows(
    only: Sequence[str], peak: Mapping[str, Mapping[str, float]], peer: str | None
) -> tuple[list[tuple[Block, list[str]]], dict[str, str]]:
    """Choose the rows to measure.

    Where matrix products are slower in bf16 than in fp32, nobody would choose bf16 and some rows would take hours, so
    bf16 rows are skipped unless `only` names them.

    Args:
        only: names of rows; if empty, all rows.
        peak: GFLOP/s by precision and clock, from `machine.peak`.
        peer: the Python interpreter of the environment with TRL; None if there is none.

    Returns:
        Each block with the names of its chosen rows, and the reason for each skipped row.
    """
    from benchmarks import training

    speeds = {name: by["wall"] for name, by in peak.items()}
    fast_precision = max(speeds, key=speeds.__getitem__)
    blocks = all_blocks(fast_precision)
    rows = [row for block in blocks for row in block.rows]
    skipped = {}
    if fast_precision == "fp32" and not only:
        reason = f"matrix products run at {speeds['bf16']:.0f} GFLOP/s in bf16 here, at {speeds['fp32']:.0f} in fp32"
        skipped = {row.name: reason for row in rows if row.precision == "bf16"}
    if not peer:
        skipped |= dict.fromkeys(training.TRL_ROWS, "no environment with TRL; `make bench` creates it")
    measured = {name for name in only or [row.name for row in rows] if name not in skipped}
    chosen = [(block, [row.name for row in block.rows if row.name in measured]) for block in blocks]
    return [(block, chosen_rows) for block, chosen_rows in chosen if chosen_rows], skipped


def _write(record: dict[str, object], args: argparse.Namespace) -> None:
    if args.output or not args.only:
        Path(args.output or table.HERE / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    if not args.output and not args.only:
        table.main()
    print(table.markdown(record))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", help="comma-separated rows to measure; default: all")
    parser.add_argument("--pairs", type=int, default=5, help="measurements of each side")
    parser.add_argument("--model", default="smollm2-135m", help="packaged model, folder or Hugging Face id")
    parser.add_argument(
        "--output", help="file for the results; default: benchmarks/results.json and README.md, or none with --only"
    )
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of 16 items per training measurement")
    parser.add_argument("--items", type=int, default=96, help="labelled items per scoring measurement")
    parser.add_argument("--answers", type=int, default=24, help="questions per QA measurement")
    parser.add_argument("--probed", type=int, default=20, help="items per probe measurement")
    parser.add_argument("--runs", type=int, default=5, help="number of the grid's 12 runs to measure")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="time that ratios use; cpu is meant for busy machines"
    )
    default = str(ROOT / ".venv-bench" / "bin" / "python")
    parser.add_argument("--peer_python", default=default, help="Python interpreter of the environment with TRL")
    return parser


if __name__ == "__main__":
    sys.exit(main())
