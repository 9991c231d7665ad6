"""The equal sweep behind the learning rates of the arm `matched`: `python -m tuning.learning_rates`.

Every variant gets the same number of rates, items, steps and validation items; only the rates' scale is its own,
because a vector (VeRA) and a whole model (full) move by other amounts than a low-rank matrix. No test item is seen.
"""

from __future__ import annotations

import sys

from whichlora import tracking
from whichlora.options import MAIN, parse_values
from whichlora.resolve import resolve
from whichlora.run import trial
from whichlora.variants import CATALOGUE

EXPERIMENT = "learning-rates"
SIZES = {"train_size": "250", "validation_size": "100"}
ADAPTER_RATES = ("5e-4", "1.5e-3", "4.5e-3")
RATES = {
    **{name: ADAPTER_RATES for name, variant in CATALOGUE.items() if variant.kind == "adapter"},
    "vera": ("5e-3", "1.5e-2", "4.5e-2"),
    "full": ("2e-5", "6e-5", "1.8e-4"),
}


def main() -> int:
    """Run what is missing of the sweep and print its table."""
    client = tracking.connect()
    tracker = tracking.Tracker(client, EXPERIMENT)
    print("| variant | rate | validation F1 en | validation F1 sw | mean | seconds |\n|---|---|---|---|---|---|")
    for variant, rates in RATES.items():
        for rate in rates:
            texts = {name: default for name, (default, _) in MAIN.items()}
            plan = resolve(parse_values({**texts, **SIZES, "variant": variant, "learning_rate": rate}))
            found = trial(plan, tracker).metrics
            en, tl = found["validation/en/f1"], found["validation/tl/f1"]
            seconds = found["train/seconds"]
            print(f"| {variant} | {rate} | {en:.3f} | {tl:.3f} | {(en + tl) / 2:.3f} | {seconds:.0f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
