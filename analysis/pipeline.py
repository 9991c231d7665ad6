"""Turns runs and results from files into a report: pulls, computes, writes the folder and logs it. Read this first."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from mlflow.tracking import MlflowClient

from analysis import evidence as evidences
from analysis import plots, registry
from analysis.claims.claims import PACKAGED, load
from analysis.evidence import Evidence
from analysis.report import page
from analysis.report.page import Report
from analysis.report.run_links import RELATIVE
from analysis.runs import (
    comparison_answers,
    language_probes,
    loss_curves,
    predictions,
    representation_probes,
    result_files,
)
from analysis.runs.adapter_sizes import join_sizes
from analysis.runs.methods import UNTRAINED
from analysis.runs.pull import pull
from analysis.runs.tidy import Runs
from whichlora.announcements import announce, announced
from whichlora.config.spec import canonical_digest
from whichlora.errors import OptionError
from whichlora.tracking.client import (
    check_writable,
    connect,
    database_exists,
    is_read_only,
    require_database,
    work_folder,
)
from whichlora.tracking.experiment_page import link_report
from whichlora.tracking.launch import find_launch, mark_launch
from whichlora.tracking.lookup import find_experiments
from whichlora.tracking.markdown import NOTE_LIMIT, code, escaped, paragraphs
from whichlora.tracking.runs import Tracker

NO_EXPERIMENT = "none"
"""The value of the option `experiment` if only files are analysed."""


class Analysis(NamedTuple):
    """A finished analysis.

    Attributes:
        report: the report that was written.
        evidence: what it rests on.
        table: one row per result, see `tidy.Runs`.
        client: the client of the tracking database; None without an experiment.
        experiment: the names of the experiments as given.
        report_id: the id of the report's run; None if it was not logged.
    """

    report: Report
    evidence: Evidence
    table: pd.DataFrame
    client: MlflowClient | None
    experiment: str
    report_id: str | None


def analyze(
    experiment: str,
    *,
    results: Sequence[Path] = (),
    output: Path,
    margin: float,
    primary: str,
    scope: str,
    claims: Sequence[Path],
    server: str = RELATIVE,
    register: str | None = None,
    register_language: str | None = None,
) -> Analysis:
    """Compare the runs of experiments and results from files, write the report, and log it to the first experiment.

    Args:
        experiment: names of experiments, or "none": no tracking database is needed then, and nothing is logged.
        results: CSV files, see `result_files`.
        claims: YAML files of claims to judge.
        server: address of the tracking server in the report's links to runs, or "relative".
        register: the name under which `register_winner` is to register a model; only checks whether it can.
        register_language: the language of that model; checked only.

    Raises:
        OptionError: the database, an experiment or a file does not exist or cannot be used, no run is finished, or the
            claims cannot be read.
    """
    client, experiments = None, {}
    if experiment != NO_EXPERIMENT:
        require_database("experiment", experiment)
        client = connect()
        experiments = find_experiments(client, experiment)
    elif database_exists() and find_launch(connect()):
        mark_launch(connect())
    tracker = Tracker(client, next(iter(experiments)), mark_launch(client)) if client else None
    for file in claims:
        load(file)  # a malformed one ends the command before the statistics take their minutes
    with announced("Reading the runs.", logged=True):
        runs = pull(client, experiments, result_files.read(results))
    if register is not None:
        check_writable()
        registry.check_registrable(register, runs.table, register_language)
    if runs.table.empty and runs.injected.empty:
        raise OptionError("experiment", experiment, f"has no finished run to analyse ({_counts(runs)})")
    if primary != "tl" and set(runs.table["outcome"]) == {"tl"}:
        allowed = "the runs have no source language; allowed is tl"
        raise OptionError("primary", primary, allowed)
    # The untrained base model is not a method, so its predictions are not compared.
    items, unpredicted = predictions.fetch(runs.table[runs.table["variant"] != UNTRAINED], known=runs.answers)
    design = runs.design.with_unpredicted(unpredicted)
    languages, representations = language_probes.fetch(runs), representation_probes.fetch(runs)
    table = language_probes.join_shares(runs.table, languages.shares)
    table = representation_probes.join_weights(table, representations.weights)
    table = join_sizes(client, table) if client else table
    announce("Computing statistics; with many runs and items this takes a minute or two.")
    evidence = evidences.gather(
        table,
        items,
        design,
        languages,
        representations,
        injected=runs.injected,
        margin=margin,
        primary=primary,
        scope=scope,
        claim_files=claims,
    )
    announce("Drawing figures and writing the report.")
    curves = loss_curves.fetch(client, table)
    figures = plots.make_plots(table, evidence.records, curves, languages, representations, margin=margin)
    report = page.compose(
        table,
        runs.injected,
        design,
        languages,
        representations,
        evidence,
        figures,
        experiments=experiments,
        server=server,
        comparisons=comparison_answers.fetch(runs.comparisons),
    )
    page.write(report, evidence, output)
    report_id = None
    if tracker:
        options = {"experiments": experiment, "margin": margin, "primary": primary, "scope": scope, "server": server}
        options |= {"results": ",".join(map(str, results))} if results else {}
        names = [next((name for name, file in PACKAGED.items() if file == path), str(path)) for path in claims]
        options |= {"claims": ",".join(names)} if names != ["paper"] else {}
        report_id = _log(report, evidence, tracker, design.sources, options, experiments.values())
    return Analysis(report, evidence, table, client, experiment, report_id)


def register_winner(name: str, analysis: Analysis, language: str | None = None) -> str:
    """Register a model of the method to use, for one language, under `name`, and return a sentence that says so.

    Raises:
        OptionError: no method can be chosen, or it has no model.
    """
    assert analysis.client is not None
    evidence = analysis.evidence
    return registry.register(
        name,
        evidence.records,
        analysis.table,
        analysis.client,
        primary=evidence.primary,
        margin=evidence.margin,
        origin={"experiment": analysis.experiment, "report": analysis.report_id or "none"},
        language=language,
    )


def _counts(runs: Runs) -> str:
    """Return the number of runs that are not analysed for each reason, as text."""
    design = runs.design
    kinds = {"failed": design.failed, "unfinished": design.unfinished, "lacking a required value": design.incomplete}
    counts = [f"{len(issues)} {kind}" for kind, issues in kinds.items() if issues]
    others = len(runs.probes) + sum(design.others.values())
    return ", ".join(counts) or (f"it has {others} runs of other kinds" if others else "it has no runs yet")


def _log(
    report: Report,
    evidence: Evidence,
    tracker: Tracker,
    sources: Sequence[str],
    options: Mapping[str, object],
    experiments: Iterable[str],
) -> str | None:
    """Log a report as a run of kind `report`, unless the database is read-only; an identical one is not repeated.

    The pages of the experiments (ids) link it.

    Returns:
        The id of the run.
    """
    if is_read_only():
        print("The report is not logged to MLflow: this user cannot write to the database.", file=sys.stderr)
        return None
    fingerprint = canonical_digest({"kind": "report", **report.texts})
    work = work_folder() / f"report-{fingerprint[:16]}"
    with tracker.once("report", f"report {options['experiments']}", {"fingerprint": fingerprint}, work=work) as attempt:
        if attempt.finished is None:
            log = attempt.log
            log.params({**options, "runs": len(sources)})
            # A tag holds about 5,000 characters; the artifact `sources.json` lists all runs.
            log.tags({"sources": _shorten(sources), "summary": " ".join(report.summary)[:4000]})
            with tempfile.TemporaryDirectory() as scratch:
                page.write(report, evidence, Path(scratch))
                log.artifacts(Path(scratch))
            log.describe(_describe(report, options))
        tracker.link_launch(attempt.run_id)
        link_report(tracker.client, experiments, attempt.run_id)
        return attempt.run_id


def _describe(report: Report, options: Mapping[str, object]) -> str:
    """Return the description of a report's run: where to read it, its summary, and the command that repeats it."""
    given = " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in options.items())
    command = f"whichlora analyze {given.replace('--experiments ', '--experiment ', 1)}"
    return paragraphs(
        "The report is `report.html` among the artifacts; `statistics.json` has its numbers.",
        "\n".join(f"- {escaped(line)}" for line in report.summary)[: NOTE_LIMIT // 2],
        code([command], "sh"),
    )


def _shorten(names: Sequence[str], limit: int = 100) -> str:
    rest = len(names) - limit
    return ",".join(names[:limit]) + (f" and {rest} more, see sources.json" if rest > 0 else "")
