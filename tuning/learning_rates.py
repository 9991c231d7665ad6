"""The equal sweep behind the learning rates of the arm `matched`: `python -m tuning.learning_rates [VARIANT ...]`.

Every variant gets three rates with the first seed and its two best of them with the second, at the default sizes; only
the rates' scale is its own, because a vector (VeRA) and a whole model (full) move by other amounts than a low-rank
matrix. The seeds are not the default one, so that the runs with the default rates are no part of their own choice, and
no test item is seen. Finished trials are found again, so a second call prints the table at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import mean

from whichlora.config.options import MAIN, parse_options
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError, choose
from whichlora.run.pipeline import trial
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker

EXPERIMENT = "learning-rates"
SEEDS = ("0", "1")
KEPT = 2
RATES = {
    "lora": ("1e-3", "2e-3", "4e-3"),
    "dora": ("1e-3", "2e-3", "4e-3"),
    "vera": ("1e-2", "3e-2", "1e-1"),
    "adalora": ("5e-3", "1e-2", "2e-2"),
    "pissa": ("5e-4", "1e-3", "2e-3"),
    "rslora": ("1e-3", "2e-3", "4e-3"),
    "full": ("1e-4", "2e-4", "4e-4"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing of the sweep, for the variants named or for all, and print its table."""
    try:
        variants = [choose("variant", name, RATES) for name in arguments or ()] or list(RATES)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tracker = Tracker(connect(), EXPERIMENT)
    columns = [f"seed {seed}: en / sw" for seed in SEEDS]
    print("| variant | rate |", " | ".join(columns), "| mean |\n|---|---|" + "---|" * (len(columns) + 1), flush=True)
    for variant in variants:
        scores: dict[str, list[tuple[float, float]]] = {}
        rates: Sequence[str] = RATES[variant]
        for seed in SEEDS:
            for rate in rates:
                scores.setdefault(rate, []).append(_validated(tracker, variant, rate, seed))
            rates = sorted(rates, key=lambda rate: -_mean(scores[rate]))[:KEPT]
        for rate, pairs in scores.items():
            cells = [f"{en:.3f} / {tl:.3f}" for en, tl in pairs] + [""] * (len(SEEDS) - len(pairs))
            print(f"| {variant} | {rate} |", " | ".join(cells), f"| {_mean(pairs):.3f} |", flush=True)
    return 0


def _validated(tracker: Tracker, variant: str, rate: str, seed: str) -> tuple[float, float]:
    texts = {name: default for name, (default, _) in MAIN.items()}
    plan = resolve(parse_options({**texts, "variant": variant, "learning_rate": rate, "seed": seed}))
    found = trial(plan, tracker).metrics
    return found["validation/en/f1"], found["validation/tl/f1"]


def _mean(pairs: Sequence[tuple[float, float]]) -> float:
    return mean(score for pair in pairs for score in pair)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
