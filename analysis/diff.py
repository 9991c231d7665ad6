"""The command `diff`, which compares two runs: `python -m analysis.diff RUN RUN`.

It is part of the analysis because it tests as a report does, on the predictions that the runs have logged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import Command, escape_what_cannot_be_shown, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, parse_integer

_MOST_ITEMS = 10**6
_KINDS = ("run", "base", "trial", None)
"""Kinds of runs that answer items; None stands for runs that were logged otherwise."""
COMMAND = Command(
    "diff",
    "Compare the runs FIRST and SECOND: their specs, costs, scores and answers.\n\nA run is given by its id or the "
    "first digits of it, which whichlora runs lists. On the same test items, differences have an interval from a "
    "paired bootstrap, and McNemar's exact test. The database is only read.",
    {"items": ("5", "Number of differing answers to list of each test set.")},
    positional={"first": (), "second": ()},
    examples=("whichlora diff 3f2a91 8c07de", "whichlora diff 3f2a91 8c07de --items 50"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two runs. Return the exit status: 2 for unknown runs, or runs that cannot be compared."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _diff(texts), texts)


def _diff(texts: Mapping[str, str]) -> int:
    items = parse_integer("items", texts["items"], 0, _MOST_ITEMS)
    escape_what_cannot_be_shown()

    # MLflow, pandas and SciPy take seconds to import.
    with announced("Reading the tracking database."):
        from analysis.two_runs.answers import compare
        from analysis.two_runs.params import differences
        from analysis.two_runs.text import report
        from whichlora.text_tables import terminal_width
        from whichlora.tracking.client import connect, require_database
        from whichlora.tracking.lookup import find_run

        require_database("first", texts["first"])
        client = connect()
        first, second = (find_run(client, name, texts[name], _KINDS) for name in ("first", "second"))
        if first.info.run_id == second.info.run_id:
            raise OptionError("second", texts["second"], "must be another run than first")
        tasks = first.data.params.get("task"), second.data.params.get("task")
        if None in tasks or tasks[0] != tasks[1]:
            named = " and ".join(str(task or "none") for task in tasks)
            raise OptionError(
                "second", texts["second"], f"must be a run of the same task as first; the tasks are {named}"
            )
        for option, run in (("first", first), ("second", second)):
            if run.info.status != "FINISHED":
                reason = run.data.tags.get("whichlora.error", "it has not finished")
                raise OptionError(option, texts[option], f"has no result ({run.info.status.lower()}): {reason}")
        groups, comparisons = differences(first, second), compare(first, second)
    print(report(first, second, groups, comparisons, items=items, width=terminal_width()))
    return 0


if __name__ == "__main__":
    exit_with(main)
