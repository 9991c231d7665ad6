"""What a study may search besides a variant's grid: the recipe of a training, and alpha as a rule (option `search`).

The values are the same for all variants, with each method's recommended and matched ones added. Epochs, and so the
number of training items, do not change with the batch size: trials with other batch sizes cost about the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whichlora.config.option_values import SCHEDULERS
from whichlora.config.options import AUTO, RunOptions
from whichlora.errors import OptionError, did_you_mean
from whichlora.variants import Variant
from whichlora.variants.capabilities import lacks

RECIPE: Mapping[str, tuple[float | str, ...]] = {
    "batch_size": (4, 8, 16, 32, 64),
    "warmup": (0.0, 0.05, 0.1, 0.2),
    "weight_decay": (0.0, 0.01, 0.1),
    "dropout": (0.0, 0.05, 0.1, 0.2),
    "scheduler": SCHEDULERS,
}
"""Values by option of a run."""
ALPHA_RULE = "alpha_rule"
"""Name in `search` of alpha as one of `ALPHA_RULES`, in the place of numbers that do not depend on the rank."""
ALPHA_RULES = ("sqrt", "rank", "2*rank")
NAMES = (*RECIPE, ALPHA_RULE)
NONE, ALL = "none", "all"
SEARCHES = (AUTO, NONE, ALL, *NAMES)
"""Values of the option `search`; names may be joined by commas."""
LEAST_BATCHES = 4
"""Batches of an epoch in the lowest rung: with fewer, a learning rate has no time to rise and decay."""


def parse_search(text: str, *, kind: str) -> tuple[str, ...]:
    """Parse the option `search`; `auto` is everything in a continuous space and nothing in others.

    Returns:
        Names of `NAMES`.

    Raises:
        OptionError: a name is not one of them.
    """
    if text in (AUTO, NONE, ALL):
        return NAMES if text == ALL or (text == AUTO and kind == "continuous") else ()
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in NAMES:
            problem = f"{name or 'an empty name'} cannot be searched; " if len(names) > 1 else ""
            allowed = f"allowed are {', '.join(SEARCHES)}, several joined by commas{did_you_mean(name, NAMES)}"
            raise OptionError("search", text, f"{problem}{allowed}")
    return tuple(dict.fromkeys(names))


def check_search(text: str, names: Sequence[str], options: RunOptions, variants: Sequence[Variant]) -> None:
    """Check that names that the user gives can be searched.

    Raises:
        OptionError: the option is set, or no variant has it.
    """
    for name in () if text in (AUTO, NONE, ALL) else names:
        option = "alpha" if name == ALPHA_RULE else name
        if (value := getattr(options, option)) is not None:
            raise OptionError("search", text, f"{option}={value} is set, so it is not searched; remove one of the two")
        if all(name in unsearchable(variant) for variant in variants):
            listed = ", ".join(variant.name for variant in variants)
            raise OptionError("search", text, f"{option} does not apply to {listed}")


def unsearchable(variant: Variant) -> set[str]:
    """Return the names that do not apply to a variant."""
    without = {
        "dropout": not variant.adapts_layers or lacks(variant.name, "dropout"),
        ALPHA_RULE: not (variant.has_alpha and variant.has_rank),
    }
    return {name for name, absent in without.items() if absent}


def largest_batch(items: int) -> int:
    """Return the largest batch size with which an epoch of the lowest rung, of `items`, has `LEAST_BATCHES` batches.

    Memory sets no limit: a batch that does not fit is split into several passes.
    """
    return max(1, items // LEAST_BATCHES)
