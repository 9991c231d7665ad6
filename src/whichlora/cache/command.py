"""The command `cache`: lists what was downloaded, converted or left unfinished, and removes what is named."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from whichlora.announcements import announced
from whichlora.command_line import BOOLEANS, Command, parse_boolean
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, check_text, did_you_mean, printable
from whichlora.text_tables import format_size, table, terminal_width

if TYPE_CHECKING:
    from whichlora.cache.entries import Entry

NONE = "none"
COMMAND = Command(
    "cache",
    "List what was downloaded, converted or left unfinished, with sizes, or remove some of it.\n\nThese are the "
    "packaged models and conversions of GGUF files, models and datasets of the Hugging Face hub, downloaded "
    "predictions, and checkpoints of unfinished runs in whichlora-work. What a running command needs is not removed.",
    {
        "remove": (NONE, "Names to remove, separated by commas; * stands for any characters, as in work/*."),
        "yes": ("false", "Whether to remove without asking: true or false."),
    },
    choices={"yes": BOOLEANS},
    examples=(
        "whichlora cache",
        "whichlora cache --remove model/meta-llama/Llama-3.1-8B",
        "whichlora cache --remove 'work/*' --yes true",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """List or remove. Return the exit status: 2 for bad options, 1 if something was not removed."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _cache(texts), texts)


def _cache(texts: Mapping[str, str]) -> int:
    sure = parse_boolean("yes", texts["yes"])
    names = (
        [] if texts["remove"] == NONE else [part.strip() for part in check_text("remove", texts["remove"]).split(",")]
    )
    if names and not sure and not sys.stdin.isatty():
        raise OptionError("yes", texts["yes"], "must be true to remove something without a terminal for the question")

    # datasets and MLflow take seconds to import.
    with announced("Measuring the caches."):
        from whichlora.cache.entries import own_entries, work_entries
        from whichlora.cache.hub import hub_entries, prepared_entries

        entries = [*own_entries(), *hub_entries(), *prepared_entries(), *work_entries()]
    if names:
        return _remove(_chosen(entries, names), sure=sure)
    print(_listing(entries))
    return 0


def _chosen(entries: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Return the entries that names or patterns stand for.

    Raises:
        OptionError: nothing has such a name.
    """
    known = [entry.name for entry in entries]
    for name in names:
        if not fnmatch.filter(known, name) and name not in known:
            listed = f"`whichlora cache` lists {len(known)} names{did_you_mean(name, known)}"
            raise OptionError("remove", ",".join(names), f"nothing has the name {name or '(empty)'}; {listed}")
    return [e for e in entries if any(e.name == name or fnmatch.fnmatchcase(e.name, name) for name in names)]


def _listing(entries: Sequence[Entry]) -> str:
    if not entries:
        return "Nothing is stored."
    rows = [("name", "size", "in use", "what it is", "where")]
    for entry in sorted(entries, key=lambda entry: -entry.size):
        rows.append(
            (entry.name, format_size(entry.size), "yes" if entry.is_used() else "", entry.what, str(entry.path))
        )
    text = table(rows, width=terminal_width(), whole=("name", "where"), optional=("where", "what it is"))
    total = format_size(sum(entry.size for entry in entries))
    return f"{text}\n{total} in total. Remove some with `whichlora cache --remove NAME`."


def _remove(entries: Sequence[Entry], *, sure: bool) -> int:
    """Remove entries that no process uses; ask first unless `sure`. Return the exit status."""
    free = [entry for entry in entries if not entry.is_used()]
    status = 0
    for entry in entries:
        if entry not in free:
            status = _report(entry, "a running command needs it")
    if not free:
        return status
    listed = ", ".join(printable(entry.name) for entry in free)
    if not sure and not click.confirm(f"Remove {listed} ({format_size(sum(entry.size for entry in free))})?"):
        return 1
    for entry in free:
        try:
            entry.remove()
        except TimeoutError:  # of its lock
            status = _report(entry, "a running command needs it")
        except OSError as error:
            status = _report(entry, error.strerror or str(error))
        else:
            print(printable(f"removed {entry.name}, {format_size(entry.size)}"))
    return status


def _report(entry: Entry, reason: str) -> int:
    print(printable(f"not removed: {entry.name}: {reason}"), file=sys.stderr)
    return 1
