"""The equal sweep behind the learning rates of the arm `matched`: `python -m tuning.learning_rates [VARIANT ...]`.

Every variant gets the same number of rates, items, steps and validation items; only the rates' scale is its own,
because a vector (VeRA) and a whole model (full) move by other amounts than a low-rank matrix. No test item is seen.
Finished trials are found again, so a second call prints the table at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from whichlora import tracking
from whichlora.errors import OptionError, choose
from whichlora.options import MAIN, parse_values
from whichlora.resolve import resolve
from whichlora.run import trial

EXPERIMENT = "learning-rates"
SIZES = {"train_size": "350", "validation_size": "60"}
RATES = {
    "lora": ("1e-3", "2e-3", "4e-3"),
    "dora": ("1e-3", "2e-3", "4e-3"),
    "vera": ("1e-2", "4e-2", "1e-1"),
    "adalora": ("2e-3", "4e-3", "1e-2"),
    "pissa": ("3e-4", "1e-3", "3e-3"),
    "rslora": ("3e-4", "1e-3", "3e-3"),
    "full": ("5e-5", "2e-4", "8e-4"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing of the sweep, for the variants named or for all, and print its table."""
    try:
        variants = [choose("variant", name, RATES) for name in arguments or ()] or list(RATES)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    tracker = tracking.Tracker(tracking.connect(), EXPERIMENT)
    print("| variant | rate | validation F1 en | validation F1 sw | mean | seconds |\n|---|---|---|---|---|---|")
    for variant in variants:
        for rate in RATES[variant]:
            texts = {name: default for name, (default, _) in MAIN.items()}
            plan = resolve(parse_values({**texts, **SIZES, "variant": variant, "learning_rate": rate}))
            found = trial(plan, tracker).metrics
            en, tl = found["validation/en/f1"], found["validation/tl/f1"]
            seconds = found["train/seconds"]
            print(f"| {variant} | {rate} | {en:.3f} | {tl:.3f} | {(en + tl) / 2:.3f} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
