"""Counts the points that a study looks at in the same device time, with and without rungs.

python -m benchmarks.tuning_points [--model M] [--train_size N] [--rungs 1,2,3]

One study with each number of rungs runs its trials one after the other, without the trainings with fresh seeds and
without pruning. All have the same cost in trainings on all items, `trials`, of which what is too little for a further
bracket is not spent.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

OPTIONS = {"space": "continuous", "epochs": "1", "target_modules": "all-linear", "keep_adapters": "none"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a row for each number of rungs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning_points", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="or `tiny` for the model of the tests")
    parser.add_argument("--train_size", default="600")
    parser.add_argument("--validation_size", default="60")
    parser.add_argument("--rungs", default="1,2,3")
    parser.add_argument("--trials", default="6")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        os.environ["WHICHLORA_STORAGE"] = f"sqlite:///{scratch}/optuna.db"
        os.environ["WHICHLORA_WORK"] = f"{scratch}/work"
        from tuning.halving.brackets import in_rung, n_points
        from tuning.optuna_study import Study
        from tuning.study_status import connect as connect_studies
        from tuning.tune import OPTIONS as TUNE
        from tuning.tune import study_configs
        from whichlora.models.memory import freeze_gc
        from whichlora.models.quiet import quiet
        from whichlora.testing import save_tiny_model
        from whichlora.tracking.client import connect
        from whichlora.tracking.runs import Tracker

        quiet()
        model = str(save_tiny_model(Path(scratch) / "tiny")) if args.model == "tiny" else args.model
        texts = {name: default for name, (default, _) in TUNE.items()} | OPTIONS | {"model": model}
        texts |= {name: getattr(args, name) for name in ("train_size", "validation_size", "trials")}
        plain = (TUNE["rungs"][0], "none")
        print("| rungs | items of the rungs | trials by rung | points | device-seconds | device-seconds a point |")
        print("|---|---|---|---|---|---|")
        for rungs, pruner in [plain if n == "1" else (n, "auto") for n in args.rungs.split(",")]:
            (config,) = study_configs(texts | {"rungs": rungs, "pruner": pruner})
            config.check()
            study = Study(config, Tracker(connect(), "points"), connect_studies(), command="", keep_adapters="none")
            freeze_gc()
            while study.step(limit=int(args.trials), allow_new=True) == "worked":
                pass
            by_rung = [len(in_rung(study.counted(), rung)) for rung in range(config.rungs.number)]
            items = [config.rungs.items(config.train_size, rung) for rung in range(config.rungs.number)]
            counts = [", ".join(map(str, numbers)) for numbers in (items, by_rung)]
            seconds, points = study.seconds(), n_points(study.counted())
            cells = [rungs, *counts, str(points), f"{seconds:.0f}", f"{seconds / points:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
