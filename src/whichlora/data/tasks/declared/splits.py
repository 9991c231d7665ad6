"""The items of a declared task's splits: rows that are none refused or left out, parallel items aligned by id."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from whichlora.data.tasks.base import SPLITS, Split
from whichlora.data.tasks.declared.conversion import Conversion, Converted, convert
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.declared.reading import Part, Place, Rows, find, has_part, rows
from whichlora.data.tasks.stratification import hold_out, hold_out_groups
from whichlora.errors import OptionError

LISTED = 10
"""Number of unusable rows that a message lists."""
NO_ANSWER = ("answer is empty", "answer is missing", "has no answer")
"""How the reasons end for rows without an answer."""

Entries = tuple[Converted, ...]


@dataclass(frozen=True)
class File:
    """A file that was read; `sha256` is empty for a table of the hub."""

    name: str
    form: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class Description:
    """What was read of a split in one language.

    Attributes:
        split: `all` for data without splits.
        items: number of items that can be used, of a parallel task in every language.
        left_out: location and reason of every row that cannot be used in this language.
        notes: what was noticed in the data.
    """

    language: str
    split: Part
    files: tuple[File, ...]
    items: int
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads the data of a declaration; `root` is its folder, None for one of the catalogue."""

    declaration: Declaration
    root: Path | None

    def place(self, data_dir: str | None) -> Place:
        """Return where the data is, and in which layout.

        Raises:
            OptionError: the folder fits no layout; the message lists what is in it.
        """
        return _place(self, data_dir)

    def has(self, language: str, part: Part, data_dir: str | None) -> bool:
        """Return whether the data has a part in a language."""
        return has_part(self.declaration, self.place(data_dir), language, part)

    def entries(self, language: str, split: Split, data_dir: str | None) -> Entries | None:
        """Return the items of a split with their groups; None if there is no such split in this language.

        Of data without splits, the share `test_share` of the items is the test set, without dividing a group.

        Raises:
            OptionError: the data is missing or cannot be used; the message names file and line.
        """
        if self.place(data_dir).layout.all is None:
            return _usable(self, language, split, data_dir)
        if split == "validation":
            return None
        entries = _usable(self, language, "all", data_dir) or ()
        reference = _usable(self, self.declaration.reference, "all", data_dir) or ()
        rest, test = divide(self.declaration, entries, reference, self.declaration.test_share)
        return test if split == "test" else rest

    def origin(self, language: str, split: Split, data_dir: str | None) -> dict[str, str]:
        """Return the SHA-256 of each file from which the items of a split are, by its path; of the hub, its split.

        Raises:
            OptionError: the data is missing or cannot be used.
        """
        place = self.place(data_dir)
        part: Part = "all" if place.layout.all else split
        if part == "validation" and not self.has(language, part, data_dir):
            part = "train"
        read = self._read(language, part, data_dir)
        tables = read[0].tables if read else ()
        if place.layout.hub:
            return {f"hub:{table.name}": "" for table in tables}
        folder = place.folder or Path()
        return {str((folder / table.name).absolute()): table.sha256 for table in tables}

    def _read(self, language: str, part: Part, data_dir: str | None) -> tuple[Rows, Conversion] | None:
        return _conversion(self, language, part, data_dir) if self.has(language, part, data_dir) else None

    def describe(self, data_dir: str | None, languages: Sequence[str] = ()) -> list[Description]:
        """Return what was read of each split in some languages, by default all, also if some of it cannot be used.

        Raises:
            OptionError: files are missing or cannot be read, or parallel items without ids cannot be aligned.
        """
        place = self.place(data_dir)
        parts: tuple[Part, ...] = ("all",) if place.layout.all else SPLITS
        found = []
        for part in parts:
            for language in languages or self.declaration.codes:
                read = self._read(language, part, data_dir)
                if read is not None:
                    files = tuple(File(t.name, t.form, len(t.records), t.sha256) for t in read[0].tables)
                    items, bad = len(read[1].entries), read[1].bad
                    if _is_aligned(self.declaration):
                        kept, differing = _aligned(self, language, part, data_dir)
                        items, bad = len(kept), (*bad, *differing)
                    found.append(Description(language, part, files, items, bad, read[1].notes))
        return found


def divide(
    declaration: Declaration, entries: Entries, reference: Entries, share: float | int
) -> tuple[Entries, Entries]:
    """Return (rest, held out): a share or a number of the entries, at most a third, without dividing a group.

    Args:
        reference: the entries of the language that decides which groups are held out.

    Raises:
        OptionError: nothing would be left of the entries.
    """
    items = [entry.item for entry in entries]
    of_items, of_reference = ([entry.group for entry in pool] for pool in (entries, reference))
    shared = declaration.group is not None and not declaration.parallel  # a group may occur in several languages
    size = share if isinstance(share, int) else round(share * len(reference if shared else items))
    if shared:
        parts = hold_out_groups(items, of_items, of_reference, size, [entry.item.stratum for entry in reference])
    else:
        parts = hold_out(items, size, of_reference if declaration.parallel else of_items)
    if items and not parts[0]:
        raise OptionError(
            "task",
            declaration.task,
            f"all items in {items[0].language} have one {declaration.group}: none can be held out",
        )
    group_of = {entry.item.id: entry.group for entry in entries}
    rest, held = (tuple(Converted(item, group_of[item.id]) for item in part) for part in parts)
    return rest, held


def _is_aligned(declaration: Declaration) -> bool:
    return declaration.parallel and len(declaration.codes) > 1


@functools.lru_cache(maxsize=64)
def _place(reader: Reader, data_dir: str | None) -> Place:
    return find(reader.declaration, reader.root, data_dir)


@functools.lru_cache(maxsize=16)
def _conversion(reader: Reader, language: str, part: Part, data_dir: str | None) -> tuple[Rows, Conversion] | None:
    found = rows(reader.declaration, _place(reader, data_dir), language, part)
    return None if found is None else (found, convert(reader.declaration, found, language))


@functools.lru_cache(maxsize=16)
def _usable(reader: Reader, language: str, part: Part, data_dir: str | None) -> Entries | None:
    """Return the items of a part; of a parallel task those that all languages have, in the order of the reference.

    Raises:
        OptionError: rows cannot be used, or languages have different items, and the declaration does not say
            `on_bad: skip`; the message counts them and lists the first ten.
    """
    read = _conversion(reader, language, part, data_dir)
    if read is None:
        return None
    found, made = read
    declaration = reader.declaration
    entries, problems = made.entries, list(made.bad)
    if _is_aligned(declaration):
        kept, differing = _aligned(reader, language, part, data_dir)
        by_id = {entry.item.id: entry for entry in entries}
        entries = tuple(by_id[item_id] for item_id in kept)
        problems += differing
    elsewhere = len(made.entries) - len(entries) if declaration.on_bad == "skip" else 0
    if problems or elsewhere:
        _report(declaration, found, problems, elsewhere)
    if not entries:
        raise found.fail(f"{found.tables[0].name} has no items in {language} that can be used")
    return tuple(replace(e, item=replace(e.item, index=index)) for index, e in enumerate(entries))


def _report(declaration: Declaration, found: Rows, problems: Sequence[str], elsewhere: int) -> None:
    """Raise or warn that rows cannot be used, or, `elsewhere` in number, cannot be used in another language."""
    total = len(found.records)
    listed = "; ".join(problems[:LISTED]) + ("; ..." if len(problems) > LISTED else "")
    by_number = any(isinstance(column, int) for column in found.fields.values())
    if by_number and problems and problems[0].partition(": ")[0].endswith(" line 1"):
        listed += ". If the first line is a header, name its columns in `fields`"
    if total == len(problems) and all(problem.endswith(NO_ANSWER) for problem in problems):
        listed += ". This copy of the data has no answers; repackagings such as XTREME's take those of test sets out"
    prompted = declaration.prompted(found.fields) if declaration.prompt else set()
    for name in sorted(prompted) if len(prompted) > 1 else ():
        if any(problem.endswith(f": {name} is empty") for problem in problems):
            listed += f". If {name} may be empty, write {{% if {name} %}} ... {{% endif %}} around it in the prompt"
    if declaration.on_bad == "fail":
        message = f"{len(problems)} of {total} rows cannot be used: {listed}. `on_bad: skip` leaves them out"
        raise found.fail(message)
    texts = [f"{len(problems)} of {total} rows in {found.tables[0].name} are left out: {listed}"] if problems else []
    texts += [f"{elsewhere} rows are left out, because they cannot be used in another language"] if elsewhere else []
    warnings.warn(f"{declaration.task}: {'; '.join(texts)}", stacklevel=2)


def _aligned(reader: Reader, language: str, part: Part, data_dir: str | None) -> tuple[tuple[str, ...], list[str]]:
    """Return the ids of a language's items that all have, in order, and how it differs from the reference.

    Raises:
        OptionError: items have no ids, and their positions do not say which are translations of each other.
    """
    declaration = reader.declaration
    ordered = dict.fromkeys((declaration.reference, *declaration.codes))
    first = next(code for code in ordered if reader.has(code, part, data_dir))
    skips = declaration.on_bad == "skip"
    compared = [code for code in ordered if reader.has(code, part, data_dir)] if skips else [first, language]
    kept = _common(reader, tuple(compared), part, data_dir)
    if skips or language == first:
        return kept, []
    (_, theirs), (found, ours) = (_conversion(reader, code, part, data_dir) for code in (first, language))  # type: ignore[misc]
    strata = {entry.item.id: entry.item.stratum for entry in theirs.entries}
    name, own = found.tables[0].name, {entry.item.id: entry.item.stratum for entry in ours.entries}
    differing = [
        f"{name}: has no item {i}, which {first} has" for i in strata if i not in own and i not in ours.bad_ids
    ]
    for item_id, stratum in own.items():
        if item_id not in strata and item_id not in theirs.bad_ids:
            differing.append(f"{name}: item {item_id} is not in {first}")
        elif item_id in strata and strata[item_id] != stratum:
            differing.append(f"{name}: item {item_id} is {stratum!r}, but {strata[item_id]!r} in {first}")
    return kept, differing


@functools.lru_cache(maxsize=64)
def _common(reader: Reader, codes: tuple[str, ...], part: Part, data_dir: str | None) -> tuple[str, ...]:
    """Return the ids of the items that all languages have with the same stratum, in the order of the first.

    Raises:
        OptionError: items have no ids, and their positions do not say which are translations of each other.
    """
    kept: dict[str, str] = {}
    count = None
    for code in codes:
        read = _conversion(reader, code, part, data_dir)
        if read is None:
            continue
        found, made = read
        given = "id" in found.fields
        if not made.positions_hold:
            raise found.fail(f"{made.bad[0]}, so that items without ids cannot be aligned; correct it, or give ids")
        if not given and count not in (None, len(found.records)):
            problem = f"{found.tables[0].name} has {len(found.records)} items in {code}, but {count} in {codes[0]}"
            raise found.fail(f"{problem}; items without ids must be the same in every language")
        strata = {entry.item.id: entry.item.stratum for entry in made.entries}
        kept = strata if count is None else {i: s for i, s in kept.items() if strata.get(i) == s}
        count = len(found.records)
    return tuple(kept)
