"""Which items a run trains on, is chosen by, and is scored on: seeded, nested over ratios, shared by all methods."""

from __future__ import annotations

import functools
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


COMPOSITIONS = ("substitution", "addition")
POOLED = "pooled"
"""The target language that stands for all of a task's `pooled` languages at once."""


def target_count(tl_ratio: float, train_size: int) -> int:
    """Return how many training items are in the target language."""
    return round(tl_ratio * train_size)


def trained_count(tl_ratio: float, train_size: int, composition: str) -> int:
    """Return how many training items there are in all."""
    return train_size + (target_count(tl_ratio, train_size) if composition == "addition" else 0)


def draw(
    task: Task,
    *,
    language: str,
    tl_ratio: float,
    composition: str,
    train_size: int,
    validation_size: int,
    test_size: int,
    seed: int,
    difficulty: str,
    data_dir: str | None,
) -> Mixture:
    """Draw a run's items.

    With the composition "substitution" the target language takes its share of `train_size` items away from English, as
    in the paper; with "addition" it is added to `train_size` English items, so that more of it is not less English.

    The items are the first of one stratified order that depends on the seed alone: so the target items at a smaller
    ratio are contained in those at a greater one, a smaller set's in a greater one's, and in a parallel task an index
    appears in one language only. For the language "pooled" the target items are dealt out to the task's pooled
    languages in turn. Validation and test items do not depend on the seed, so that every run of a comparison is chosen
    and scored on the same.

    Raises:
        OptionError: a size is more than there is.
    """
    targets = task.pooled if language == POOLED else (language,)
    n_target = target_count(tl_ratio, train_size)

    def pick(split: Split, languages: Sequence[str], size: int, order_seed: str, start: int = 0) -> list[Item]:
        """Return `size` items of a split's order from `start` on, dealt out to `languages` in turn."""
        picked: list[Item] = []
        orders = {lang: _order(task, lang, split, data_dir, difficulty, order_seed) for lang in languages}
        for turn in range(start, start + size):
            lang = languages[turn % len(languages)]
            place = turn if task.parallel else turn // len(languages)
            if place >= len(orders[lang]):
                wanted = size if split != "train" else train_size
                raise OptionError(
                    f"{split}_size", wanted, f"{task.name} has {len(orders[lang])} {split} items in {lang}"
                )
            picked.append(orders[lang][place])
        return picked

    source_order = f"{task.name} {seed}"
    if composition == "addition":
        source = pick("train", (SOURCE_LANGUAGE,), train_size, source_order)
        target_start = train_size if task.parallel else 0
    else:
        source_start = n_target if task.parallel else 0
        source = pick("train", (SOURCE_LANGUAGE,), train_size - n_target, source_order, source_start)
        target_start = 0
    target = pick("train", targets, n_target, source_order, target_start) if n_target else []
    roles = {"en": (SOURCE_LANGUAGE,), "tl": targets}
    return Mixture(
        train=[*target, *source],
        validation={
            role: pick("validation", languages, validation_size, f"{task.name} validation")
            for role, languages in roles.items()
        },
        test={role: pick("test", languages, test_size, f"{task.name} test") for role, languages in roles.items()},
    )


@functools.lru_cache(maxsize=16)
def _pool(task: Task, language: str, split: Split, data_dir: str | None, difficulty: str) -> Sequence[Item]:
    """Return a split's items, kept because the runs of a grid share few of them."""
    return task.load(language, split, data_dir=data_dir, difficulty=difficulty)


@functools.lru_cache(maxsize=16)
def _order(
    task: Task, language: str, split: Split, data_dir: str | None, difficulty: str, order_seed: str
) -> Sequence[Item]:
    """Return a split's items in the stratified order of a seed."""
    items = _pool(task, language, split, data_dir, difficulty)
    own_seed = order_seed if task.parallel or language == SOURCE_LANGUAGE else f"{order_seed} {language}"
    return [items[i] for i in stratified_order(items, own_seed)]


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


def spoken(items: Sequence[Item]) -> str:
    """Return the languages of some items, joined by "+"."""
    return "+".join(sorted({item.language for item in items}))


def texts_digest(task: Task, items: Sequence[Item]) -> str:
    """Return the SHA-256 of what the model reads and should write for these items, in order."""
    total = hashlib.sha256()
    for item in items:
        for text in (item.id, task.prompt(item), *task.gold(item)):
            total.update(text.encode() + b"\0")
    return total.hexdigest()
