"""Measures the cost per trial of tracking, the shared database and verification.

python -m benchmarks.tuning_overhead [--model M]

Each pair is a trial of the tuner, followed by one with the same point, items and training in a plain in-memory Optuna
study without tracking. The ratio is that of the median seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from benchmarks.harness import quartiles_of, timed

if TYPE_CHECKING:
    from tuning.optuna_study import Study
    from tuning.study_config import StudyConfig

OPTIONS = {"space": "continuous", "epochs": "1", "target_modules": "all-linear", "pruner": "none", "reports": "1"}


def plain_trial(config: StudyConfig, point: dict[str, Any], folder: Path) -> float:
    """Train and validate one point in a plain Optuna study and return the seconds."""
    from tuning.study_config import TUNING_SEED
    from whichlora.data.encoding import Encoder
    from whichlora.evaluation.scores import score
    from whichlora.training.trainer import train

    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(point)

    def objective(trial: optuna.Trial) -> float:
        plan = config.plan(config.space.suggest(trial), TUNING_SEED)
        encoder = Encoder(plan.task, plan.tokenizer, max_length=plan.shape.context)

        def validate(model: Any, step: int) -> float:
            scores = [
                score(model, encoder, items, scoring=plan.scoring, name="validation")
                for items in plan.mixture.validation.values()
            ]
            return sum(s.metrics["f1"] for s in scores) / len(scores)

        best: list[float] = []
        train(
            plan,
            [encoder.example(item) for item in plan.mixture.train],
            folder,
            validate=lambda model, step: best.append(validate(model, step)) or best[-1],  # type: ignore[func-returns-value]
        )
        return max(best)

    return timed(lambda: study.optimize(objective, n_trials=1))()["wall"]


def tuned_trial(study: Study, limit: int) -> tuple[float, dict[str, Any]]:
    """Run one trial of the tuner and return its seconds and its point."""
    seconds = timed(lambda: study.step(limit=limit, allow_new=True))()["wall"]
    return seconds, max(study.counted(), key=lambda t: t.number).params


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a line for each pair, the medians and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning_overhead", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--train_size", default="48")
    parser.add_argument("--validation_size", default="24")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        os.environ["WHICHLORA_STORAGE"] = f"sqlite:///{scratch}/optuna.db"
        from tuning.optuna_study import Study
        from tuning.study_status import connect as connect_studies
        from tuning.tune import OPTIONS as TUNE
        from tuning.tune import study_configs
        from whichlora.models.memory import freeze_gc
        from whichlora.models.quiet import quiet
        from whichlora.tracking.client import connect
        from whichlora.tracking.runs import Tracker

        quiet()
        texts = {name: default for name, (default, _) in TUNE.items()} | OPTIONS
        texts |= {name: getattr(args, name) for name in ("model", "train_size", "validation_size")}
        (config,) = study_configs(texts)
        study = Study(config, Tracker(connect(), "overhead"), connect_studies(), command="")
        freeze_gc()
        _, point = tuned_trial(study, 10**6)  # warm-up: loads libraries and the model
        plain_trial(config, point, Path(scratch) / "warm")
        pairs = []
        for n in range(args.pairs):
            ours, point = tuned_trial(study, 10**6)
            theirs = plain_trial(config, point, Path(scratch) / f"plain-{n}")
            pairs.append((ours, theirs))
            print(f"tuner {ours:.2f} s, plain {theirs:.2f} s", flush=True)
    ours, theirs = (quartiles_of(column) for column in zip(*pairs, strict=True))
    for side, s in (("tuner", ours), ("plain", theirs)):
        print(f"{side}: {s['median']:.2f} s per trial ({s['low']:.2f} to {s['high']:.2f}), n = {len(pairs)}")
    print(f"ratio of medians: {ours['median'] / theirs['median']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
