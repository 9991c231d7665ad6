"""Sweeps the learning rates of the arm `matched`, equally for all variants.

    python -m tuning.learning_rates [VARIANT ...]

Each variant is trained with three rates on the first seed, and with the two best of them on the second, at the default
sizes. Only the scale of the rates differs between variants, because vectors (VeRA) and whole models (full) need other
step sizes than low-rank matrices. The default seed is not used, so that rates are not selected on the seed of later
runs, and no test items are scored. Finished trials are reused: a second call prints the table at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.command_line import Command, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import check_choice

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
    "Run the sweep behind the learning rates of the arm matched, for all or the named variants, and print its table.",
    {},
    positional={"variant...": tuple(RATES)},
    program="python -m tuning.learning_rates",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the missing trials of the sweep for the named variants, or for all, and print the table."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _sweep(texts["variant"]), texts)


def _sweep(names: Sequence[str]) -> int:
    variants = [check_choice("variant", name, RATES) for name in names] or list(RATES)

    # torch and MLflow take seconds to import, so options are checked first.
    from tuning.rate_sweep import sweep

    sweep({variant: RATES[variant] for variant in variants})
    return 0


if __name__ == "__main__":
    exit_with(main)
