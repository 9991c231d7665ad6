"""Lists the files of a task and counts its items: splits, labels and repeated items."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from whichlora.caller import given_path
from whichlora.data.tasks import Item, Split, Task
from whichlora.data.tasks.base import SPLITS
from whichlora.data.tasks.declared import DeclaredTask
from whichlora.data.tasks.duplicates import counted, normalized, repeats
from whichlora.errors import OptionError
from whichlora.text_tables import table

Data = Mapping[str, Mapping[Split, Sequence[Item]]]
"""All items of a task by language and split."""
FAULTS = 6
"""Number of faulty files that an error names."""
LABELS = 12
"""Number of labels up to which a table has a column for each."""


def load(task: Task, languages: Sequence[str], *, difficulty: str, data_dir: str | None) -> Data:
    """Return all items in these languages.

    Raises:
        OptionError: the data is missing or cannot be used; the message has all that is wrong, `FAULTS` at most.
    """
    data: dict[str, dict[Split, Sequence[Item]]] = {language: {} for language in languages}
    faults: dict[str, OptionError] = {}
    for language, split in itertools.product(languages, SPLITS):
        try:
            data[language][split] = task.load(language, split, data_dir=data_dir, difficulty=difficulty)
        except OptionError as error:
            faults.setdefault(str(error), error)  # one file may have two splits, or all languages
    if faults:
        raise _together(list(faults.values()))
    return data


def _together(faults: Sequence[OptionError]) -> OptionError:
    """Return one error for all; those of other options than the first one's are left for the next call."""
    first = faults[0]
    texts = [fault.allowed for fault in faults if (fault.option, str(fault.value)) == (first.option, str(first.value))]
    if len(texts) == 1:
        return first
    listed = "; ".join(f"({number}) {text}" for number, text in enumerate(texts[:FAULTS], 1))
    more = f"; and {len(texts) - FAULTS} more" if len(texts) > FAULTS else ""
    return OptionError(first.option, first.value, f"{len(texts)} problems: {listed}{more}")


def files_table(task: Task, languages: Sequence[str], data_dir: str | None) -> str:
    """Return the files with these languages, and for a declared task their detected formats, and their rows.

    Empty if the task reads none.
    """
    splits: dict[str, list[str]] = {}
    codes: dict[str, list[str]] = {}
    details: dict[str, tuple[object, ...]] = {}
    notes: list[str] = []

    def note(file: str, split: str, code: str) -> None:
        splits.setdefault(file, []).append(split)
        codes.setdefault(file, []).append(code)

    if isinstance(task, DeclaredTask):
        for part in task.reader.describe(data_dir, languages):
            for file in part.files:
                note(file.name, part.split, part.language)
                details[file.name] = (file.rows, file.form)
            notes += [f"  {part.split} in {part.language}: {text}" for text in part.notes]
    else:
        folder = given_path(data_dir).absolute() if data_dir else Path()
        for split, code in itertools.product(SPLITS, languages):
            for path in task.origin(code, split, data_dir=data_dir):
                note(str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path, split, code)
    if not splits:
        return ""
    rows = [(file, _distinct(splits[file]), _distinct(codes[file]), *details.get(file, ())) for file in splits]
    head = ("file", "splits", "languages", *(("rows", "format") if details else ()))
    return "\n".join([table([head, *rows]), *notes])


def _distinct(texts: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


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
