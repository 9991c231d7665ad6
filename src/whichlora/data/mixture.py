"""Draws the training, validation and test items of a run: seeded, nested over ratios, and equal for all variants."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from whichlora.data.chat import ChatTemplate
from whichlora.data.targets import alternation, target_languages, target_shares
from whichlora.data.tasks.base import SPLITS, PairTask, Split, Task
from whichlora.data.tasks.duplicates import counted, repeats
from whichlora.data.tasks.items import Item
from whichlora.data.tasks.stratification import stratified_order
from whichlora.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Training and validation items of a run.

    `validation` is keyed by role: `en` for the source language and `tl` for the target languages, whatever they are, or
    `control` for word pairs. A role without validation items has an empty list.
    """

    train: Sequence[Item]
    validation: dict[str, Sequence[Item]]


COMPOSITIONS = ("substitution", "addition")


def selection_roles(validation: Mapping[str, Sequence[Item]], select_on: str) -> list[str]:
    """Return the roles whose validation items select the checkpoint."""
    return [role for role in validation if select_on in (role, "mean")]


def target_count(tl_ratio: float, train_size: int) -> int:
    """Return the number of training items in the target language."""
    return round(tl_ratio * train_size)


def trained_count(tl_ratio: float, train_size: int, composition: str) -> int:
    """Return the total number of training items."""
    return train_size + (target_count(tl_ratio, train_size) if composition == "addition" else 0)


MAX_AUTOMATIC = {"train": 5000, "validation": 500}
"""Largest sizes of item sets, unless task or options give others."""


def automatic_size(
    task: Task,
    split: Literal["train", "validation"],
    *,
    language: str,
    difficulty: str,
    data_dir: str | None,
    composition: str = "substitution",
) -> int:
    """Return the size of the training or validation set that source and target languages have at every `tl_ratio`.

    Ratios can be compared only at one size. A language without items does not count: it can be evaluated only. With the
    composition "addition" a parallel task, of which an index is used in one language, has half of its training items.

    Raises:
        OptionError: no language has items.
    """
    roles = task.roles(target_languages(task, language))
    codes = dict.fromkeys(code for languages in roles.values() for code in languages)
    counts = {code: len(_pool(task, code, split, data_dir, difficulty)) for code in codes}
    if not any(counts.values()):
        raise OptionError("task", task.name, f"has no {split} items in {' or '.join(codes)}")
    size = min(filter(None, counts.values()))
    if split == "train" and task.parallel and composition == "addition":
        size = max(1, size // 2)
    return min(size, MAX_AUTOMATIC[split])


def warn_of_repeats(task: Task, *, language: str, difficulty: str, data_dir: str | None) -> None:
    """Warn once of repeated items within and across the splits of each language of a run."""
    if not (task.synthetic or isinstance(task, PairTask)):  # their splits are disjoint by construction
        for languages in task.roles(target_languages(task, language)).values():
            for code in languages:
                _warn_of_repeats(task, code, data_dir, difficulty)


@functools.cache
def _warn_of_repeats(task: Task, language: str, data_dir: str | None, difficulty: str) -> None:
    found = counted(repeats(task, {split: _pool(task, language, split, data_dir, difficulty) for split in SPLITS}))
    if found:
        warnings.warn(f"{task.name} in {language}: {'; '.join(found)}", stacklevel=2)


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

    With the composition "substitution" target items replace source items within `train_size`, as in the paper; with
    "addition" they are added to `train_size` source items, whose number then does not depend on the ratio. A task
    without a source language has target items only.

    Items are drawn from the start of a stratified order that depends only on the seed, so the target items of a smaller
    ratio or training set are a subset of those of a larger one. In a parallel task an index appears in one language
    only. Several target languages alternate, in training by their shares and in validation equally. Validation items do
    not depend on the seed, so that all checkpoints of a comparison are selected on the same items.

    Args:
        select_on: the validation score that selects the checkpoint: `en`, `tl` or `mean`; for word pairs `control`.

    Raises:
        OptionError: A size exceeds the available items, the target language has no items for training or for selecting
            the checkpoint, or the languages of a parallel task do not match.
    """
    shares = target_shares(task, language)
    targets = tuple(shares)
    roles = task.roles(targets)
    n_target = target_count(tl_ratio, train_size)

    def orders(split: Split, languages: Sequence[str], order_seed: str) -> list[Sequence[Item]]:
        return [_order(task, lang, split, data_dir, difficulty, order_seed) for lang in languages]

    def train(languages: Sequence[str], size: int, start: int, turns: Sequence[int]) -> list[Item]:
        pools = orders("train", languages, source_order)
        option = "train_size", train_size
        return _take_alternately(task, "train", languages, pools, range(start, start + size), option, turns)

    def validation_items(role: str) -> list[Item]:
        """Return the validation items of a role; empty if a language has none and the role selects no checkpoint."""
        order_seed = f"{task.name} validation"
        if all(orders("validation", roles[role], order_seed)):
            pools, option = orders("validation", roles[role], order_seed), ("validation_size", validation_size)
            return _take_alternately(task, "validation", roles[role], pools, range(validation_size), option)
        others = [other for other in roles if other != role]
        if select_on not in others:
            problem = f"{task.name} has no {'+'.join(roles[role])} items to select a checkpoint on"
            raise OptionError("select_on", select_on, "; allowed is ".join([problem, *others]))
        return []

    source_order = f"{task.name} {seed}"
    if n_target and not all(orders("train", targets, source_order)):
        raise OptionError("tl_ratio", tl_ratio, f"{task.name} has no {language} items to train on; allowed is 0")
    source_start = target_start = 0
    if task.parallel:
        source_start, target_start = (0, train_size) if composition == "addition" else (n_target, 0)
    n_source = train_size if composition == "addition" else train_size - n_target
    source = train((task.source,), n_source, source_start, (0,)) if task.source else []
    target = train(targets, n_target, target_start, alternation(list(shares.values()))) if n_target else []
    return Mixture(train=[*target, *source], validation={role: validation_items(role) for role in roles})


def draw_tests(
    task: Task, *, language: str, test_size: int | None, difficulty: str, data_dir: str | None
) -> dict[str, Sequence[Item]]:
    """Draw the test items of a run by role, see `draw_test`."""
    size = "test_size", test_size
    return {
        role: draw_test(task, languages, size, difficulty=difficulty, data_dir=data_dir)
        for role, languages in task.roles(target_languages(task, language)).items()
    }


def draw_test(
    task: Task, languages: Sequence[str], option: tuple[str, int | None], *, difficulty: str, data_dir: str | None
) -> Sequence[Item]:
    """Draw test items that alternate between languages, the same for every seed.

    Args:
        option: name of the size option, for error messages, and the total number of items; None means all items.

    Raises:
        OptionError: There are fewer items.
    """
    pools = [_order(task, lang, "test", data_dir, difficulty, f"{task.name} test") for lang in languages]
    size = len(pools[0]) if option[1] is None and task.parallel else option[1]
    if size is None:
        return [item for pool in pools for item in pool]
    return _take_alternately(task, "test", languages, pools, range(size), (option[0], size))


def _take_alternately(
    task: Task,
    split: Split,
    languages: Sequence[str],
    pools: Sequence[Sequence[Item]],
    positions: range,
    option: tuple[str, int],
    turns: Sequence[int] | None = None,
) -> list[Item]:
    """Return the items at `positions` of the sequence that alternates between the languages' items, `pools`.

    In a parallel task, position `i` is item `i` of its language; otherwise each language's items are used in order.

    Args:
        turns: the order of the languages, by their positions in `languages`, which repeats; None for one turn each.
    """
    turns = turns or range(len(pools))
    items: list[Item] = []
    for position in positions:
        rounds, turn = divmod(position, len(turns))
        number = turns[turn]
        index = position if task.parallel else rounds * turns.count(number) + turns[:turn].count(number)
        if index >= len(pools[number]):
            allowed = f"{task.name} has {len(pools[number])} {split} items in {languages[number]}"
            raise OptionError(*option, allowed)
        items.append(pools[number][index])
    return items


@functools.lru_cache(maxsize=16)
def _pool(task: Task, language: str, split: Split, data_dir: str | None, difficulty: str) -> Sequence[Item]:
    """Return a split's items; cached, because the runs of a grid share a few splits."""
    items = task.load(language, split, data_dir=data_dir, difficulty=difficulty)
    if task.parallel and task.source and language != task.source and items:
        _check_parallel(_pool(task, task.source, split, data_dir, difficulty), items, data_dir)
    return items


@functools.lru_cache(maxsize=16)
def _order(
    task: Task, language: str, split: Split, data_dir: str | None, difficulty: str, order_seed: str
) -> Sequence[Item]:
    """Return a split's items in the stratified order of a seed."""
    items = _pool(task, language, split, data_dir, difficulty)
    seed = order_seed if task.parallel or language == task.source else f"{order_seed} {language}"
    return [items[i] for i in stratified_order(items, seed)]


def _check_parallel(source: Sequence[Item], target: Sequence[Item], data_dir: str | None) -> None:
    """Check by ids and strata that items with the same index are translations of each other.

    Raises:
        OptionError: they are not; the message names the first pair that differs.
    """
    for a, b in zip_longest(source, target):
        if a is None or b is None or (a.id, a.stratum) != (b.id, b.stratum):
            names = [f"{item.id} ({item.stratum}) in {item.language}" if item else "no item" for item in (a, b)]
            raise OptionError("data_dir", data_dir, f"the languages are not parallel: {names[0]} pairs with {names[1]}")


def languages_of(items: Sequence[Item]) -> str:
    """Return the languages of the items, sorted and joined by "+"."""
    return "+".join(sorted({item.language for item in items}))


def texts_digest(task: Task, items: Sequence[Item], chat: ChatTemplate | None = None) -> str:
    """Return the SHA-256 of the ids, prompts and gold answers of the items, in order, and of the chat template.

    Choices of the items' own are included; other labels are part of the prompt version.
    """
    digest = hashlib.sha256() if chat is None else hashlib.sha256(chat.text.encode())
    for item in items:
        choices = task.label_words(item) if task.own_choices else ()
        for text in (item.id, task.prompt(item), *task.gold(item), *choices):
            digest.update(text.encode() + b"\0")
    return digest.hexdigest()
