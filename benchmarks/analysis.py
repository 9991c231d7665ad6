"""Times the report on 1,008 synthetic runs with predictions: `python -m benchmarks.analysis [--items 300]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow

METHODS = [("lora", "matched"), ("dora", "recommended"), ("dora", "matched"), ("vera", "matched")]
METHODS += [("adalora", "matched"), ("pissa", "matched")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Log synthetic runs to a temporary database, analyse them, and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=300, help="test items per language")
    parser.add_argument("--seeds", type=int, default=14)
    args = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "analysis"))
    from synthetic import log_design

    from analysis import analyze

    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        mlflow.set_tracking_uri(f"sqlite:///{scratch}/mlflow.db")
        runs = log_design(
            "invented",
            methods=METHODS,
            languages=("sw", "ur", "hi"),
            ratios=(0.0, 0.01, 0.1, 0.5),
            seeds=range(1, args.seeds + 1),
            items=args.items,
            fields={"test_size": args.items},
        )
        wall, processor = time.monotonic(), time.process_time()
        status = analyze.main(["--experiment", "invented"])
        wall, processor = time.monotonic() - wall, time.process_time() - processor
        size = (Path(scratch) / "report" / "report.html").stat().st_size / 1e6
    print(
        f"{len(runs)} runs, {args.items} items per language: {wall:.0f} s, {processor:.0f} s of CPU; page {size:.1f} MB"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
