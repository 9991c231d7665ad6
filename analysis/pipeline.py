"""From an experiment's runs to a report: pulls, computes, writes the folder and logs it. Read this first."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis import evidence as evidences
from analysis import plots
from analysis.evidence import Evidence
from analysis.report import page
from analysis.report.page import Report
from analysis.runs import language_probes, loss_curves, predictions, representation_probes
from analysis.runs.methods import UNTRAINED
from analysis.runs.pull import Runs, find_experiments, pull
from whichlora.config.spec import canonical_digest
from whichlora.errors import OptionError
from whichlora.tracking.client import connect, mark_launch, require_database, work_folder
from whichlora.tracking.runs import Tracker


def analyze(experiment: str, *, output: Path, margin: float, scope: str, claims: Path | None) -> Report:
    """Pull the runs of one or several experiments, compute, write the report and log it to the first of them.

    Raises:
        OptionError: there is no such database or experiment, no finished run, or the claims cannot be read.
    """
    require_database("experiment", experiment)
    client = connect()
    experiments = find_experiments(client, experiment)
    tracker = Tracker(client, next(iter(experiments)), mark_launch(client))
    found = pull(client, experiments)
    if found.table.empty and found.injected.empty:
        raise OptionError("experiment", experiment, f"has no finished run to analyse ({_counts(found)})")
    # The untrained base model is no method: nothing is compared with its answers.
    items, lacking = predictions.fetch(found.table[found.table["variant"] != UNTRAINED])
    design = found.design.with_unpredicted(lacking)
    probed, looked = language_probes.fetch(found), representation_probes.fetch(found)
    table = language_probes.join_shares(found.table, probed.shares)
    evidence = evidences.gather(
        table, items, design, probed, looked, injected=found.injected, margin=margin, scope=scope, own_claims=claims
    )
    curves = loss_curves.fetch(client, table)
    drawn = plots.make_plots(table, evidence.records, curves, probed, looked, margin=margin)
    report = page.compose(table, found.injected, design, probed, looked, evidence, drawn)
    page.write(report, evidence, output)
    _log(report, evidence, tracker, design.sources, {"experiments": experiment, "margin": margin, "scope": scope})
    return report


def _counts(found: Runs) -> str:
    design = found.design
    kinds = {"failed": design.failed, "unfinished": design.unfinished, "lacking a needed value": design.incomplete}
    told = [f"{len(issues)} {what}" for what, issues in kinds.items() if issues]
    return ", ".join(told) or f"it holds {len(found.probes) + sum(design.others.values())} runs of other kinds"


def _log(
    report: Report, evidence: Evidence, tracker: Tracker, sources: Sequence[str], options: Mapping[str, object]
) -> None:
    """Log a report as a run of kind `report`; the run of an identical report is reused."""
    fingerprint = canonical_digest({"kind": "report", **report.texts})
    work = work_folder() / f"report-{fingerprint[:16]}"
    with tracker.once("report", f"report {options['experiments']}", {"fingerprint": fingerprint}, work=work) as attempt:
        if attempt.finished is None:
            log = attempt.log
            log.params({**options, "runs": len(sources)})
            # A tag holds some 5,000 characters; the artifact `sources.json` names every run.
            log.tags({"sources": _cut(sources), "summary": " ".join(report.summary)[:4000]})
            with tempfile.TemporaryDirectory() as scratch:
                page.write(report, evidence, Path(scratch))
                log.artifacts(Path(scratch))
        tracker.link_launch(attempt.run_id)


def _cut(names: Sequence[str], most: int = 100) -> str:
    rest = len(names) - most
    return ",".join(names[:most]) + (f" and {rest} more, see sources.json" if rest > 0 else "")
