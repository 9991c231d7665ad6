"""The equal sweep behind the learning rates of the arm `matched`: `python -m tuning.learning_rates [VARIANT ...]`.

Every variant gets three rates with the first seed and its two best of them with the second, at the default sizes; only
the rates' scale is its own, because a vector (VeRA) and a whole model (full) move by other amounts than a low-rank
matrix. The seeds are not the default one, so that the runs with the default rates are no part of their own choice, and
no test item is seen. Finished trials are found again, so a second call prints the table at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from whichlora.command_line import Command
from whichlora.errors import OptionError, choose

RATES = {
    "lora": ("1e-3", "2e-3", "4e-3"),
    "dora": ("1e-3", "2e-3", "4e-3"),
    "vera": ("1e-2", "3e-2", "1e-1"),
    "adalora": ("5e-3", "1e-2", "2e-2"),
    "pissa": ("5e-4", "1e-3", "2e-3"),
    "rslora": ("1e-3", "2e-3", "4e-3"),
    "full": ("1e-4", "2e-4", "4e-4"),
}


COMMAND = Command(
    "learning-rates",
    "Run the sweep behind the learning rates of the arm matched and print its table, for all variants or those named.",
    {},
    positional={"variant...": tuple(RATES)},
    program="python -m tuning.learning_rates",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing of the sweep, for the variants named or for all, and print its table."""
    names = COMMAND.read(arguments)["variant"]
    try:
        variants = [choose("variant", name, RATES) for name in names] or list(RATES)
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    # torch and MLflow take seconds to import, so bad options are refused first.
    from tuning.rate_sweep import sweep

    sweep({variant: RATES[variant] for variant in variants})
    return 0


if __name__ == "__main__":
    sys.exit(main())
