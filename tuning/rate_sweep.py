"""Sweeps the learning rates of each variant equally and prints the table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from statistics import mean

from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.resolve import resolve
from whichlora.errors import NonFiniteError
from whichlora.run.pipeline import trial
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker

EXPERIMENT = "learning-rates"
SEEDS = ("0", "1")
N_BEST = 2
"""Number of best rates per variant that are also trained with the second seed."""


def sweep(rates_by_variant: Mapping[str, Sequence[str]]) -> None:
    """Run the missing trials of the sweep over each variant's rates and print the table."""
    tracker = Tracker(connect(), EXPERIMENT)
    columns = [f"seed {seed}: en / sw" for seed in SEEDS]
    print("| variant | rate |", " | ".join(columns), "| mean |\n|---|---|" + "---|" * (len(columns) + 1), flush=True)
    for variant, rates in rates_by_variant.items():
        scores: dict[str, list[tuple[float, float] | None]] = {}
        for seed in SEEDS:
            for rate in rates:
                scores.setdefault(rate, []).append(_validation_f1(tracker, variant, rate, seed))
            rates = sorted(rates, key=lambda rate: -_mean(scores[rate]))[:N_BEST]
        for rate, pairs in scores.items():
            cells = ["diverged" if pair is None else f"{pair[0]:.3f} / {pair[1]:.3f}" for pair in pairs]
            cells += [""] * (len(SEEDS) - len(pairs))
            average = "-" if None in pairs else f"{_mean(pairs):.3f}"
            print(f"| {variant} | {rate} |", " | ".join(cells), f"| {average} |", flush=True)


def _validation_f1(tracker: Tracker, variant: str, rate: str, seed: str) -> tuple[float, float] | None:
    """Return the validation F1 in English and in the target language; None if training diverged."""
    texts = {name: default for name, (default, _) in RUN_OPTIONS.items()}
    plan = resolve(parse_options({**texts, "variant": variant, "learning_rate": rate, "seed": seed}))
    try:
        metrics = trial(plan, tracker).metrics
    except NonFiniteError as error:
        print(f"{plan.name}: {error}", file=sys.stderr)
        return None
    return metrics["validation/en/f1"], metrics["validation/tl/f1"]


def _mean(pairs: Sequence[tuple[float, float] | None]) -> float:
    """Return the mean of all scores; minus infinity if a training diverged."""
    scores = [score for pair in pairs if pair is not None for score in pair]
    return float("-inf") if None in pairs else mean(scores)
