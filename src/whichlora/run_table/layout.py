"""Prints runs as a table that fits the terminal, as CSV or as JSON."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from whichlora.csv_text import to_csv
from whichlora.run_table.listing import Listed, Listing
from whichlora.text_tables import shown, table, terminal_width

_SHORTEST_ID = 6
_INTERVAL, _SD = "95 % CI", "SD"
_SHARED: Mapping[str, Callable[[Listed], str]] = {
    "experiment": lambda run: run.experiment,
    "kind": lambda run: run.kind,
    "task": lambda run: run.task,
    "model": lambda run: PurePosixPath(run.model).name or run.model,
    "language": lambda run: run.language,
    "ratio": lambda run: run.tl_ratio,
}
"""Columns that are stated above the table if all runs have the same value."""
_WHOLE = ("run", "started", _INTERVAL)
_OPTIONAL = ("started", "seconds", _SD, _INTERVAL, "model", "task", "experiment", "kind", "metric", "ratio", "seed")
_COLUMNS = (
    *("run_id", "name", "experiment", "kind", "variant", "arm", "task", "model", "language", "tl_ratio", "seed"),
    *("status", "reason"),
)


def print_listing(listing: Listing, *, form: str) -> None:
    """Print runs in the form `table`, `csv` or `json`, and remarks to stderr."""
    runs = listing.runs
    if form == "csv":
        print(to_csv(pd.DataFrame(map(_record, runs), columns=None if runs else [*_COLUMNS])), end="")
    elif form == "json":
        print(json.dumps([_record(run) for run in runs], indent=2, ensure_ascii=False))
    elif runs:
        print(as_table(runs, width=terminal_width()))
    if listing.more:
        print(f"These are the {len(runs):,} newest; limit=all lists all.", file=sys.stderr)
    if listing.remark:
        print(shown(listing.remark), file=sys.stderr)


def as_table(runs: Sequence[Listed], *, width: int | None) -> str:
    """Return runs as a table with what they share above it; with `width`, of lines of at most so many cells."""
    shared = {name: value(runs[0]) for name, value in _SHARED.items() if len({value(run) for run in runs}) == 1}
    titles = list(dict.fromkeys(title for run in runs for title in run.scores))
    metrics = {score.metric for run in runs for score in run.scores.values()}
    ids = _short_ids([run.run_id for run in runs])
    head = ["run", "method"]
    head += [name for name in _SHARED if name not in shared]
    head += ["seed", "seeds", "status"]
    for title in titles:
        head += [f"{next(iter(metrics))} {title}" if len(metrics) == 1 else title, _SD, _INTERVAL]
    head += ["metric"] * (len(metrics) > 1) + ["seconds", "started"]
    rows = []
    for run, short in zip(runs, ids, strict=True):
        row = [short, run.method or run.name, *(_SHARED[name](run) for name in _SHARED if name not in shared)]
        row += [run.seed, "" if run.seeds is None else str(run.seeds)]
        row += [f"{run.status}: {run.reason}" if run.reason else run.status]
        for title in titles:
            score = run.scores.get(title)
            row.append("-" if score is None else score.scale.text(score.value))
            row.append("" if score is None or score.sd is None else score.scale.text(score.sd))
            row.append("" if score is None or score.interval is None else score.scale.interval(*score.interval))
        row += [", ".join(dict.fromkeys(s.metric for s in run.scores.values()))] * (len(metrics) > 1)
        row += ["" if run.seconds is None else f"{run.seconds:,.0f}", f"{run.started.astimezone():%Y-%m-%d %H:%M}"]
        rows.append(row)
    filled = [k for k in range(len(head)) if any(row[k] not in ("", "-") for row in rows)]
    rows = [[row[k] for k in filled] for row in (head, *rows)]
    return f"{_title(runs, shared)}\n{table(rows, width=width, whole=_WHOLE, optional=_OPTIONAL)}"


def _title(runs: Sequence[Listed], shared: Mapping[str, str]) -> str:
    """Return the number of runs by status, and what all have in common."""
    counts = Counter(run.status for run in runs)
    states = ", ".join(f"{counts[status]:,} {status}" for status in sorted(counts))
    common = ", ".join(
        f"{name} {shown(value)}" for name, value in shared.items() if value and (name, value) != ("kind", "run")
    )
    return f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'} ({states}); {common}".removesuffix("; ")


def _short_ids(ids: Sequence[str]) -> list[str]:
    """Return the first digits of ids, of one length at which no two are the same."""
    length = next(n for n in range(_SHORTEST_ID, 33) if len({i[:n] for i in ids}) == len(ids) or n == 32)
    return [i[:length] for i in ids]


def _record(run: Listed) -> dict[str, object]:
    """Return a run as a flat record, with scores under the names of their metrics in MLflow."""
    record: dict[str, object] = {name: getattr(run, name) for name in _COLUMNS}
    record |= {"started": run.started.isoformat(timespec="seconds"), "train/seconds": run.seconds}
    if run.seeds is not None:
        record["seeds"] = run.seeds
    for score in run.scores.values():
        record[score.key] = score.value
        if score.sd is not None:
            record[f"{score.key}_sd"] = score.sd
        if score.interval is not None:
            record |= {f"{score.key}_low": score.interval[0], f"{score.key}_high": score.interval[1]}
    return record
