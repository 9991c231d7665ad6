"""Which items a run trains on, is chosen by, and is scored on: seeded, nested over ratios, shared by all methods."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from whichlora.data.tasks.base import SOURCE_LANGUAGE, Split, Task
from whichlora.data.tasks.items import Item
from whichlora.data.tasks.stratification import stratified_order
from whichlora.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The items that a run trains on, and those that its checkpoint is chosen by.

    `validation` is by role: `en` and `tl`, or `control` for word pairs. It is empty for a language that has none.
    """

    train: Sequence[Item]
    validation: dict[str, Sequence[Item]]


COMPOSITIONS = ("substitution", "addition")
POOLED = "pooled"
"""The target language that stands for all of a task's `pooled` languages at once."""


def selection_roles(validation: Mapping[str, Sequence[Item]], select_on: str) -> list[str]:
    """Return the roles whose validation chooses the checkpoint."""
    return [role for role in validation if select_on in (role, "mean")]


def target_languages(task: Task, language: str) -> tuple[str, ...]:
    """Return the languages that the option `language` stands for."""
    return task.pooled if language == POOLED else (language,)


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
    train_size: int,
    validation_size: int,
    seed: int,
    difficulty: str,
    data_dir: str | None,
    composition: str = "substitution",
    select_on: str = "mean",
) -> Mixture:
    """Draw a run's training and validation items.

    With the composition "substitution" the target language takes its share of `train_size` items away from English, as
    in the paper; with "addition" it is added to `train_size` English items, so that more of it is not less English.

    The items are the first of one stratified order that depends on the seed alone: so the target items at a smaller
    ratio are contained in those at a greater one, a smaller set's in a greater one's, and in a parallel task an index
    appears in one language only. For the language "pooled" the target items are dealt out to the task's pooled
    languages in turn. Validation items do not depend on the seed, so that every checkpoint of a comparison is chosen on
    the same.

    Args:
        select_on: the validation that chooses the checkpoint: `en`, `tl` or `mean`; for word pairs `control`.

    Raises:
        OptionError: a size is more than there is, the target language has nothing to train on or to choose by, or the
            languages of a parallel task are not parallel.
    """
    targets = target_languages(task, language)
    roles = task.roles(targets)
    n_target = target_count(tl_ratio, train_size)

    def orders(split: Split, languages: Sequence[str], order_seed: str) -> list[Sequence[Item]]:
        return [_order(task, lang, split, data_dir, difficulty, order_seed) for lang in languages]

    def pick(split: Split, languages: Sequence[str], size: int, order_seed: str, start: int = 0) -> list[Item]:
        wanted = ("train_size", train_size) if split == "train" else (f"{split}_size", size)
        pools = orders(split, languages, order_seed)
        return _deal(task, split, languages, pools, range(start, start + size), wanted)

    def held_out(role: str) -> list[Item]:
        """Return validation items; none where some language has none, if the checkpoint is not chosen by them."""
        order_seed = f"{task.name} validation"
        if all(orders("validation", roles[role], order_seed)):
            return pick("validation", roles[role], validation_size, order_seed)
        other = "tl" if role == "en" else "en"
        if select_on != other:
            allowed = f"{task.name} has no {'+'.join(roles[role])} items to choose a checkpoint by; allowed is {other}"
            raise OptionError("select_on", select_on, allowed)
        return []

    source_order = f"{task.name} {seed}"
    if n_target and not all(orders("train", targets, source_order)):
        raise OptionError("tl_ratio", tl_ratio, f"{task.name} has no {language} items to train on; allowed is 0")
    source_start = target_start = 0
    if task.parallel:
        source_start, target_start = (0, train_size) if composition == "addition" else (n_target, 0)
    n_source = train_size if composition == "addition" else train_size - n_target
    source = pick("train", (SOURCE_LANGUAGE,), n_source, source_order, source_start)
    target = pick("train", targets, n_target, source_order, target_start) if n_target else []
    return Mixture(train=[*target, *source], validation={role: held_out(role) for role in roles})


def draw_tests(
    task: Task, *, language: str, test_size: int | None, difficulty: str, data_dir: str | None
) -> dict[str, Sequence[Item]]:
    """Draw the test items of a run by role, as `draw_test` does."""
    wanted = "test_size", test_size
    return {
        role: draw_test(task, languages, wanted, difficulty=difficulty, data_dir=data_dir)
        for role, languages in task.roles(target_languages(task, language)).items()
    }


def draw_test(
    task: Task, languages: Sequence[str], wanted: tuple[str, int | None], *, difficulty: str, data_dir: str | None
) -> Sequence[Item]:
    """Draw test items in some languages, dealt out to them in turn: the same ones for every seed.

    Args:
        wanted: an option's name, and how many items it asks for in all; None takes every item there is.

    Raises:
        OptionError: there are fewer.
    """
    pools = [_order(task, lang, "test", data_dir, difficulty, f"{task.name} test") for lang in languages]
    size = len(pools[0]) if wanted[1] is None and task.parallel else wanted[1]
    if size is None:
        return [item for pool in pools for item in pool]
    return _deal(task, "test", languages, pools, range(size), (wanted[0], size))


def _deal(
    task: Task,
    split: Split,
    languages: Sequence[str],
    pools: Sequence[Sequence[Item]],
    turns: range,
    wanted: tuple[str, int],
) -> list[Item]:
    """Return items of a split's orders, `pools`, dealt out to their languages in turn; `wanted` as in `draw_test`."""
    picked: list[Item] = []
    for turn in turns:
        pool = pools[turn % len(pools)]
        place = turn if task.parallel else turn // len(pools)
        if place >= len(pool):
            allowed = f"{task.name} has {len(pool)} {split} items in {languages[turn % len(pools)]}"
            raise OptionError(*wanted, allowed)
        picked.append(pool[place])
    return picked


@functools.lru_cache(maxsize=16)
def _pool(task: Task, language: str, split: Split, data_dir: str | None, difficulty: str) -> Sequence[Item]:
    """Return a split's items, kept because the runs of a grid share few of them."""
    items = task.load(language, split, data_dir=data_dir, difficulty=difficulty)
    if task.parallel and language != SOURCE_LANGUAGE and items:
        _check_parallel(_pool(task, SOURCE_LANGUAGE, split, data_dir, difficulty), items, data_dir)
    return items


@functools.lru_cache(maxsize=16)
def _order(
    task: Task, language: str, split: Split, data_dir: str | None, difficulty: str, order_seed: str
) -> Sequence[Item]:
    """Return a split's items in the stratified order of a seed."""
    items = _pool(task, language, split, data_dir, difficulty)
    own_seed = order_seed if task.parallel or language == SOURCE_LANGUAGE else f"{order_seed} {language}"
    return [items[i] for i in stratified_order(items, own_seed)]


def _check_parallel(source: Sequence[Item], target: Sequence[Item], data_dir: str | None) -> None:
    """Check that each index is the same item in two languages, as far as ids and strata tell."""
    for a, b in zip_longest(source, target):
        if a is None or b is None or (a.id, a.stratum) != (b.id, b.stratum):
            found = [f"{item.id} ({item.stratum}) in {item.language}" if item else "nothing" for item in (a, b)]
            raise OptionError("data_dir", data_dir, f"the languages are not parallel: {found[0]} is {found[1]}")


def languages_of(items: Sequence[Item]) -> str:
    """Return the languages of some items, joined by "+"."""
    return "+".join(sorted({item.language for item in items}))


def texts_digest(task: Task, items: Sequence[Item]) -> str:
    """Return the SHA-256 of what the model reads and should write for these items, in order."""
    total = hashlib.sha256()
    for item in items:
        for text in (item.id, task.prompt(item), *task.gold(item)):
            total.update(text.encode() + b"\0")
    return total.hexdigest()
