"""Counts the items of a task: splits, labels and repeated items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from whichlora.data.tasks import Item, Split, Task
from whichlora.data.tasks.base import SPLITS
from whichlora.data.tasks.duplicates import counted, normalized, repeats
from whichlora.data_check.tables import table

Data = Mapping[str, Mapping[Split, Sequence[Item]]]
"""All items of a task by language and split."""
LABELS = 12
"""Number of labels up to which a table has a column for each."""


def load(task: Task, languages: Sequence[str], *, difficulty: str, data_dir: str | None) -> Data:
    """Return all items in these languages.

    Raises:
        OptionError: the data is missing or cannot be used.
    """
    return {
        language: {split: task.load(language, split, data_dir=data_dir, difficulty=difficulty) for split in SPLITS}
        for language in languages
    }


def items_table(data: Data) -> str:
    """Return the number of items by language and split."""
    return table([("language", *SPLITS), *((code, *(len(items[s]) for s in SPLITS)) for code, items in data.items())])


def labels_table(task: Task, data: Data) -> str:
    """Return the shares of the labels by language and split; of many labels, only the most and the least frequent."""
    rows: list[Sequence[object]] = []
    many = len(task.labels) > LABELS
    for code, splits in data.items():
        for split, items in splits.items():
            if not items:
                continue
            counts = Counter(dict.fromkeys(task.labels, 0))
            counts.update(task.gold(item)[0] for item in items)
            shares = {label: _percent(n, len(items)) for label, n in counts.items()}
            if many:
                (most, _), *_, (least, n) = counts.most_common()
                absent = sum(count == 0 for count in counts.values())
                rows.append((code, split, f"{most} {shares[most]}", f"{least} {n:,}", absent))
            else:
                rows.append((code, split, *shares.values()))
    head = ("most frequent", "least frequent (items)", "labels without items") if many else task.labels
    return table([("language", "split", *head), *rows])


def _percent(count: int, total: int) -> str:
    return "<1 %" if 0 < count < 0.005 * total else f"{100 * count / total:.0f} %"


def repeated(task: Task, data: Data) -> dict[str, list[str]]:
    """Return what is repeated within and across the splits of each language, as phrases."""
    return {code: counted(repeats(task, splits)) for code, splits in data.items()}


def shared(task: Task, data: Data) -> dict[str, list[str]]:
    """Return how many scored items of each language share their longest field, such as a passage, with training items.

    Tasks whose items have one text have no such field: there it is the whole item that may be repeated.
    """
    found: dict[str, list[str]] = {}
    for code, splits in data.items():
        texts = {split: [task.texts(item) for item in items] for split, items in splits.items()}
        if not texts["train"] or len(texts["train"][0]) < 2:
            continue
        field = max(texts["train"][0], key=lambda name: sum(len(entry.get(name, "")) for entry in texts["train"]))
        trained = {normalized(entry.get(field, "")) for entry in texts["train"]}
        for split in ("validation", "test"):
            count = sum(normalized(entry.get(field, "")) in trained for entry in texts[split])
            if count:
                have = "has" if count == 1 else "have"
                a = "an" if field[0] in "aeiou" else "a"
                phrase = f"{count:,} of {len(texts[split]):,} {split} items {have} {a} {field} that training items have"
                found.setdefault(code, []).append(phrase)
    return found
