"""The command `runs`: lists the runs of the tracking database with their scores."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.command_line import Command, escape_what_cannot_be_shown
from whichlora.config.cli import guarded
from whichlora.config.options import ARMS
from whichlora.data.tasks import NAMES
from whichlora.errors import check_choice, check_text, parse_integer, parse_unless
from whichlora.variants import CATALOGUE

ALL = "all"
KINDS = ("run", "base", "trial", "study", "probe", "report", "launch", "summary", "comparison")
STATUSES = ("finished", "failed", "killed", "running")
FORMS = ("table", "csv", "json")
LIMIT = 10**6
OPTIONS = {
    "experiment": (ALL, "MLflow experiment, or several separated by commas."),
    "method": (ALL, "Variant such as vera, or variant and arm such as vera-matched."),
    "task": (ALL, "Name of the task."),
    "language": (ALL, "Target language, as the option of run."),
    "status": (ALL, f"How runs ended: {', '.join(STATUSES)}."),
    "kind": ("run", f"Kind of runs: {', '.join(KINDS)}, or all."),
    "limit": ("500", "Largest number of runs, of which the newest are listed; all for no limit."),
    "form": (
        FORMS[0],
        "Output: table, which fits the terminal and is whole elsewhere; csv or json, with full ids and all digits.",
    ),
}
COMMAND = Command(
    "runs",
    "List the runs of the tracking database with their scores.\n\nThe database is that of MLFLOW_TRACKING_URI, by "
    "default mlflow.db in the current folder; it is only read.",
    OPTIONS,
    choices={
        "method": tuple(CATALOGUE),
        "task": NAMES,
        "status": (*STATUSES, ALL),
        "kind": (*KINDS, ALL),
        "form": FORMS,
    },
    examples=(
        "whichlora runs",
        "whichlora runs --experiment pocket --method vera-matched --language sw",
        "whichlora runs --status failed",
        "whichlora runs --kind all --limit all --form json",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the runs. Return the exit status: 2 for bad options."""
    texts = COMMAND.read(arguments)
    return guarded(lambda: _list(texts), texts)


def _list(texts: Mapping[str, str]) -> int:
    form = check_choice("form", texts["form"], FORMS)
    status, kind = (_chosen(name, texts[name], values) for name, values in (("status", STATUSES), ("kind", KINDS)))
    limit = parse_unless(ALL, parse_integer, "limit", texts["limit"], 1, LIMIT)
    params = _method(check_text("method", texts["method"]))
    params |= {name: check_text(name, texts[name]) for name in ("task", "language") if texts[name] != ALL}
    experiment = check_text("experiment", texts["experiment"])
    escape_what_cannot_be_shown()

    # MLflow takes seconds to import, so options are checked first.
    with announced("Reading the tracking database."):
        from whichlora.run_table.layout import print_listing
        from whichlora.run_table.listing import Query, search

        gc.disable()  # it takes two thirds of the time with thousands of runs, and this process ends soon
        query = Query(experiment=None if experiment == ALL else experiment, kind=kind, status=status, params=params)
        listing = search(query, limit)
    print_listing(listing, form=form)
    return 0


def _chosen(option: str, text: str, values: Sequence[str]) -> str | None:
    """Return the chosen value; None for all."""
    return parse_unless(ALL, check_choice, option, text, values)


def _method(text: str) -> dict[str, str]:
    """Return the params that a method stands for: variant, or variant and arm."""
    if text == ALL:
        return {}
    variant, _, arm = text.rpartition("-")
    return {"variant": variant, "arm": arm} if variant and arm in ARMS else {"variant": text}
