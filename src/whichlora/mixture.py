"""Which items a run trains on, is chosen by, and is scored on: seeded, nested over ratios, shared by all methods."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from whichlora.errors import OptionError
from whichlora.tasks.base import SOURCE_LANGUAGE, Item, Split, Task
from whichlora.tasks.sampling import stratified_order


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The items of one run. `validation` and `test` are by role: `en` and `tl`.

    The validation of a target language that has none is empty.
    """

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
    test_size: int | None,
    seed: int,
    difficulty: str,
    data_dir: str | None,
    select_on: str = "mean",
) -> Mixture:
    """Draw a run's items.

    The training items are the first of one stratified order that depends on the seed alone, and the target language
    takes the first of those: so the target items at a smaller ratio are contained in those at a greater one, a
    smaller set's indexes in a greater one's, and in a parallel task an index appears in one language only. Validation
    and test items do not depend on the seed, so that every run of a comparison is chosen and scored on the same.

    Args:
        test_size: None takes every item there is, in each language.
        select_on: the validation that chooses the checkpoint: `en`, `tl` or `mean`.

    Raises:
        OptionError: a size is more than there is, the target language has nothing to train on or to choose by, or the
            languages of a parallel task are not parallel.
    """
    n_target = target_count(tl_ratio, train_size)
    roles = {"en": SOURCE_LANGUAGE, "tl": language}

    def pools(split: Split, *, target: bool = True) -> dict[str, Sequence[Item]]:
        wanted = {role: lang for role, lang in roles.items() if role == "en" or target}
        loaded = {
            role: task.load(lang, split, data_dir=data_dir, difficulty=difficulty) for role, lang in wanted.items()
        }
        if task.parallel and target and loaded["tl"]:
            _check_parallel(loaded["en"], loaded["tl"], data_dir)
        return loaded

    def first(items: Sequence[Item], split: Split, role: str, size: int | None, order_seed: str) -> list[Item]:
        if size is not None and size > len(items):
            raise OptionError(f"{split}_size", size, f"{task.name} has {len(items)} {split} items in {roles[role]}")
        return [items[i] for i in stratified_order(items, order_seed)[:size]]

    train = pools("train", target=n_target > 0)
    if n_target and not train["tl"]:
        raise OptionError("tl_ratio", tl_ratio, f"{task.name} has no {language} items to train on; allowed is 0")
    source_order = f"{task.name} {seed}"
    target_order = source_order if task.parallel else f"{source_order} {language}"
    source = first(train["en"], "train", "en", train_size if task.parallel else train_size - n_target, source_order)
    target = first(train["tl"], "train", "tl", n_target, target_order) if n_target else []
    validation = pools("validation")
    for role, other in (("en", "tl"), ("tl", "en")):
        if not validation[role] and select_on != other:
            allowed = f"{task.name} has no {roles[role]} items to choose a checkpoint by; allowed is {other}"
            raise OptionError("select_on", select_on, allowed)
    return Mixture(
        train=[*target, *(source[n_target:] if task.parallel else source)],
        validation={
            role: first(items, "validation", role, validation_size, f"{task.name} validation") if items else []
            for role, items in validation.items()
        },
        test={
            role: first(items, "test", role, test_size, f"{task.name} test") for role, items in pools("test").items()
        },
    )


def _check_parallel(source: Sequence[Item], target: Sequence[Item], data_dir: str | None) -> None:
    """Check that each index is the same item in two languages, as far as ids and strata tell."""
    for a, b in zip_longest(source, target):
        if a is None or b is None or (a.id, a.stratum) != (b.id, b.stratum):
            found = [f"{item.id} ({item.stratum}) in {item.language}" if item else "nothing" for item in (a, b)]
            raise OptionError("data_dir", data_dir, f"the languages are not parallel: {found[0]} is {found[1]}")


def texts_digest(task: Task, items: Sequence[Item]) -> str:
    """Return the SHA-256 of what the model reads and should write for these items, in order."""
    total = hashlib.sha256()
    for item in items:
        for text in (item.id, task.prompt(item), *task.gold(item)):
            total.update(text.encode() + b"\0")
    return total.hexdigest()
