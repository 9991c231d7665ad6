"""Resolves the sizes of a run's item sets, the mixture of languages, and the validation set for checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from whichlora.config.compatibility import difficulty_of
from whichlora.config.options import RunOptions
from whichlora.data import mixture
from whichlora.data.tasks import Task
from whichlora.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class ItemSizes:
    """The resolved sizes and shares; the fields are those of `RunSpec`."""

    tl_ratio: float
    composition: str
    train_size: int
    validation_size: int
    test_size: int | None
    select_on: str


def item_sizes(options: RunOptions, task: Task) -> ItemSizes:
    """Return the sizes of the item sets; the task provides the defaults, and data is read only if it has none.

    Raises:
        OptionError: the share of the target language is less than an item.
    """
    default = task.default_tl_ratio if task.source else 1.0
    tl_ratio = default if options.tl_ratio is None else options.tl_ratio
    train_size = options.train_size or task.sizes.train or _automatic(options, task, "train")
    n_target = mixture.target_count(tl_ratio, train_size)
    if tl_ratio and not n_target:
        if options.tl_ratio is None:
            raise OptionError("train_size", train_size, f"is too small for a target item at tl_ratio={tl_ratio:g}")
        allowed = f"is too small for a target item at train_size={train_size}; set 0 or a larger ratio"
        raise OptionError("tl_ratio", f"{tl_ratio:g}", allowed)
    # Without target items both compositions are identical and must have the same fingerprint.
    composition = options.composition if n_target else mixture.COMPOSITIONS[0]
    only_target = composition == "substitution" and n_target == train_size
    select_on = options.select_on or ("en" if n_target == 0 else "tl" if only_target else "mean")
    return ItemSizes(
        tl_ratio=tl_ratio,
        composition=composition,
        train_size=train_size,
        validation_size=options.validation_size or task.sizes.validation or _automatic(options, task, "validation"),
        test_size=options.test_size or task.sizes.test,
        select_on=task.selection_role or select_on,
    )


def _automatic(options: RunOptions, task: Task, split: Literal["train", "validation"]) -> int:
    return mixture.automatic_size(
        task,
        split,
        language=options.language,
        difficulty=difficulty_of(options, task),
        data_dir=options.data_dir,
        composition=options.composition,
    )
