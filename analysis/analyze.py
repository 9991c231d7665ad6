"""From an experiment's runs to a report: `python -m analysis.analyze --experiment pocket`.

Writes the page, the statistics, tables and figures into a folder, and logs them to MLflow as a run of kind `report`.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whichlora.config.cli import parse_arguments, refuse
from whichlora.errors import OptionError, check_folder

if TYPE_CHECKING:
    from analysis.evidence import Evidence
    from analysis.report.page import Report
    from analysis.runs.pull import Runs
    from whichlora.tracking.runs import Tracker

OPTIONS = {
    "experiment": (None, "MLflow experiment, or several joined by commas"),
    "output": (
        "report",
        "folder to write the report into; under mlflow run beside a SQLite database, else where it is called",
    ),
    "margin": ("1", "F1 points within which methods count as equivalent"),
    "claims": (
        "none",
        "YAML file of claims of your own, judged after the paper's; its form is that of analysis/claims/claims.yaml",
    ),
}


def analyze(experiment: str, *, output: Path, margin: float, claims: Path | None, tracker: Tracker) -> Report:
    """Pull the runs, compute, write the report and log it. `tracker` is of the first experiment named.

    Raises:
        OptionError: there is no such experiment, no finished run in it, or the claims cannot be read.
    """
    from analysis import evidence as evidences
    from analysis import plots
    from analysis.report import page
    from analysis.runs import language_probes, loss_curves, predictions, representation_probes
    from analysis.runs.methods import UNTRAINED
    from analysis.runs.pull import find_experiments, pull

    found = pull(tracker.client, find_experiments(tracker.client, experiment))
    if found.table.empty and found.injected.empty:
        raise OptionError("experiment", experiment, f"has no finished run to analyse ({_counts(found)})")
    # The untrained base model is no method: nothing is compared with its answers.
    items, lacking = predictions.fetch(found.table[found.table["variant"] != UNTRAINED])
    design = found.design.with_unpredicted(lacking)
    probed, looked = language_probes.fetch(found), representation_probes.fetch(found)
    table = language_probes.join_shares(found.table, probed.shares)
    evidence = evidences.gather(
        table, items, design, probed, looked, injected=found.injected, margin=margin, own_claims=claims
    )
    curves = loss_curves.fetch(tracker.client, table)
    drawn = plots.make_plots(table, evidence.records, curves, probed, looked, margin=margin)
    made = page.compose(table, found.injected, design, probed, looked, evidence, drawn)
    page.write(made, evidence, output)
    _log(made, evidence, tracker, experiment, design.sources, margin)
    return made


def _counts(found: Runs) -> str:
    design = found.design
    kinds = {"failed": design.failed, "unfinished": design.unfinished, "lacking a needed value": design.incomplete}
    told = [f"{len(issues)} {what}" for what, issues in kinds.items() if issues]
    return ", ".join(told) or f"it holds {len(found.probes) + sum(design.others.values())} runs of other kinds"


def _log(
    made: Report, evidence: Evidence, tracker: Tracker, experiment: str, sources: Sequence[str], margin: float
) -> None:
    """Log a report as a run of kind `report`; one of the same content is there already when nothing has changed."""
    from analysis.report import page
    from whichlora.config.spec import canonical_digest

    fingerprint = canonical_digest({"kind": "report", **made.texts})
    finished = tracker.find("report", status="FINISHED", fingerprint=fingerprint)
    if finished is None:
        log = tracker.open("report", f"report {experiment}", {"fingerprint": fingerprint})
        with log.guarded(), tempfile.TemporaryDirectory() as scratch:
            log.params({"experiments": experiment, "margin": margin, "runs": len(sources)})
            # A tag holds some 5,000 characters; the artifact `sources.json` names every run.
            log.tags({"sources": _cut(sources), "summary": " ".join(made.summary)[:4000]})
            page.write(made, evidence, Path(scratch))
            log.artifacts(Path(scratch))
    tracker.link_launch(finished.info.run_id if finished else log.run_id)


def _cut(names: Sequence[str], most: int = 100) -> str:
    rest = len(names) - most
    return ",".join(names[:most]) + (f" and {rest} more, see sources.json" if rest > 0 else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read options, analyse, and print the report's first sentences. Returns the exit status: 2 for bad options."""
    given = parse_arguments(arguments, (__doc__ or "").partition("\n")[0], OPTIONS)

    try:
        margin, output, claims = _margin(given["margin"]), _folder(given["output"]), _file(given["claims"])
        from analysis.runs.pull import find_experiments
        from whichlora.tracking.client import connect, mark_launch, require_database
        from whichlora.tracking.runs import Tracker

        require_database("experiment", given["experiment"])
        client = connect()
        first = next(iter(find_experiments(client, given["experiment"])))
        tracker = Tracker(client, first, mark_launch(client))
        made = analyze(given["experiment"], output=output, margin=margin, claims=claims, tracker=tracker)
    except OptionError as error:
        return refuse(error)
    print("\n".join(made.summary))
    print(f"The report is {output / 'report.html'}, its numbers are in {output / 'statistics.json'}.")
    return 0


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 100:
        raise OptionError("margin", text, "must be a number of F1 points above 0 and at most 100")
    return value


def _folder(text: str) -> Path:
    from whichlora.tracking.client import sqlite_file

    # `mlflow run` works in the project's folder; what it makes lies beside the database, where it was called.
    database = sqlite_file() if os.environ.get("MLFLOW_RUN_ID") else None
    path = (database.parent if database else Path.cwd()) / text
    check_folder("output", text, path)
    return path


def _file(text: str) -> Path | None:
    if text == "none":
        return None
    if not Path(text).is_file():
        raise OptionError("claims", text, "must be a YAML file in the form of analysis/claims/claims.yaml, or none")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
