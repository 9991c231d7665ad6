"""Which items a run trains on, is chosen by, and is scored on: seeded, nested over ratios, shared by all methods."""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from whichlora.errors import OptionError
from whichlora.tasks.base import SOURCE_LANGUAGE, Item, Split, Task


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The items of one run. `validation` and `test` are by role: `en` and `tl`."""

    train: Sequence[Item]
    validation: dict[str, Sequence[Item]]
    test: dict[str, Sequence[Item]]


def target_count(tl_ratio: float, train_size: int) -> int:
    """Return how many of the training items are in the target language."""
    return round(tl_ratio * train_size)


def draw(
    task: Task,
    *,
    language: str,
    tl_ratio: float,
    train_size: int,
    validation_size: int,
    test_size: int,
    seed: int,
    difficulty: str,
    data_dir: str | None,
) -> Mixture:
    """Draw a run's items.

    The training items are the first of one stratified order that depends on the seed alone, and the target language
    takes the first of those: so the target items at a smaller ratio are contained in those at a greater one, a
    smaller set's indexes in a greater one's, and in a parallel task an index appears in one language only. Validation
    and test items do not depend on the seed, so that every run of a comparison is chosen and scored on the same.

    Raises:
        OptionError: a size is more than there is.
    """
    n_target = target_count(tl_ratio, train_size)

    def pool(split: Split, lang: str) -> Sequence[Item]:
        return task.load(lang, split, data_dir=data_dir, difficulty=difficulty)

    def first(split: Split, lang: str, size: int, option: str, order_seed: str) -> list[Item]:
        items = pool(split, lang)
        if size > len(items):
            raise OptionError(option, size, f"{task.name} has {len(items)} {split} items in {lang}")
        return [items[i] for i in stratified_order(items, order_seed)[:size]]

    source_order = f"{task.name} {seed}"
    target_order = source_order if task.parallel else f"{source_order} {language}"
    source_size = train_size if task.parallel else train_size - n_target
    source = first("train", SOURCE_LANGUAGE, source_size, "train_size", source_order)
    target = first("train", language, n_target, "train_size", target_order) if n_target else []
    if task.parallel:
        source = source[n_target:]
    roles = {"en": SOURCE_LANGUAGE, "tl": language}
    return Mixture(
        train=[*target, *source],
        validation={
            role: first("validation", lang, validation_size, "validation_size", f"{task.name} validation")
            for role, lang in roles.items()
        },
        test={role: first("test", lang, test_size, "test_size", f"{task.name} test") for role, lang in roles.items()},
    )


def stratified_order(items: Sequence[Item], seed: str) -> list[int]:
    """Return positions in a shuffled order of which every beginning has the strata in the proportions of the whole.

    Each stratum is shuffled and its members are spread evenly over the order.
    """
    rng = random.Random(seed)
    strata: dict[str, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        strata[item.stratum].append(position)
    placed: list[tuple[float, float, int]] = []
    for name in sorted(strata):
        members = strata[name]
        rng.shuffle(members)
        placed += [((k + 0.5) / len(members), rng.random(), position) for k, position in enumerate(members)]
    return [position for *_, position in sorted(placed)]


def texts_digest(task: Task, items: Sequence[Item]) -> str:
    """Return the SHA-256 of what the model reads and should write for these items, in order."""
    total = hashlib.sha256()
    for item in items:
        for text in (item.id, task.prompt(item), *task.gold(item)):
            total.update(text.encode() + b"\0")
    return total.hexdigest()
