"""Composes and writes the report: a self-contained HTML page, `statistics.json`, and tables and figures as files."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd

from analysis.claims.claims import Claim
from analysis.claims.verdicts import Verdict
from analysis.evidence import Evidence
from analysis.naming import names_in
from analysis.plots import Plot
from analysis.records import dumps
from analysis.report import disputed_items, robustness, sentences
from analysis.report.advice import advice as write_advice
from analysis.report.layers import layer_section
from analysis.report.needs import needs
from analysis.report.run_links import RELATIVE, run_table
from analysis.report.sections import Section, sections
from analysis.report.summary_table import summary_table
from analysis.report.topics import INJECTED, TESTS, VIEWS
from analysis.runs.comparison_answers import ComparisonAnswer
from analysis.runs.design import Design
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.methods import UNTRAINED, method_order
from analysis.runs.representation_probes import RepresentationProbes
from analysis.stats.cells import enumerate_few
from analysis.tables import formats, injection
from analysis.tables.paper import arms_by_method
from whichlora import __version__
from whichlora.csv_text import to_csv

PAGE, STATISTICS, RESULTS, SOURCES = "report.html", "statistics.json", "results.csv", "sources.json"
DISAGREEMENTS = "disagreements.csv"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished report.

    Attributes:
        summary: the sentences of the page's first screen.
        texts: the content of each text file, by its path in the report's folder.
        plots: figures, to be written as PNG and SVG.
    """

    summary: tuple[str, ...]
    texts: dict[str, str]
    plots: tuple[Plot, ...]


class Entry(NamedTuple):
    """An entry of the contents: a chapter with the sections in it."""

    anchor: str
    title: str
    topics: tuple[Entry, ...] = ()


def compose(
    table: pd.DataFrame,
    injected: pd.DataFrame,
    design: Design,
    probes: LanguageProbes,
    insides: RepresentationProbes,
    evidence: Evidence,
    plots: list[Plot],
    *,
    experiments: Mapping[str, str],
    server: str = RELATIVE,
    comparisons: Sequence[ComparisonAnswer] = (),
) -> Report:
    """Return the report. It holds no timestamp, so the same input gives the same bytes.

    Args:
        experiments: ids by name, for the links to the runs.
        server: address of the tracking server, or "relative".
        comparisons: answers of the command `compare`, which come first.
    """
    records, margin = evidence.records, evidence.margin
    names = names_in(records)
    compared = bool(len(table))
    outcomes = _outcomes(evidence.primary, evidence.outcomes)
    answers = {outcome: sentences.answer(records, outcome, margin) if compared else [] for outcome in outcomes}
    injection_sentences = injection.sentences(injected, records)
    advice = write_advice(records, evidence.primary, margin)
    cautions = [*sentences.cautions(records, design.synthetic), *design.cautions, *design.left_out()]
    dependence = robustness.warnings(records)
    tables = {kind: [t for t in evidence.tables if t.name.startswith(kind)] for kind in _KINDS}
    tests, views = sections((*TESTS, *robustness.TOPICS), records, plots), sections(VIEWS, records, plots)
    judged = [(claim, verdict) for claim, verdict in evidence.judged if verdict.tested]
    unjudged = [(claim, verdict) for claim, verdict in evidence.judged if not verdict.tested]
    methods = method_order(table[table["variant"] != UNTRAINED])
    aligned = [plot for plot in plots if plot.name.startswith("alignment")]
    disputed = disputed_items.disputed_items(evidence.disagreements, DISAGREEMENTS, names)
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            contents=_contents(tests, views, compared, bool(evidence.judged), injection_sentences, bool(disputed.rows)),
            design=design,
            compared=compared,
            scope=sentences.scope(records),
            answers=answers,
            comparisons=comparisons,
            advice=advice,
            needs=needs(records, evidence.primary, margin),
            multiplicity=sentences.multiplicity(records, evidence.primary) if compared else "",
            cautions=cautions,
            dependence=dependence,
            first=summary_table(records, methods, arms_by_method(table), outcomes),
            leaders=[plot for outcome in outcomes for plot in plots if plot.name == f"leaders-{outcome}"],
            settings=sorted(set(table["setting"])),
            tables={kind: [formats.to_html(t) for t in of_kind] for kind, of_kind in tables.items()},
            scores=[plot for plot in plots if plot.name.startswith("f1")],
            losses=[plot for plot in plots if plot.name.startswith("loss")],
            runs=run_table(table, experiments, server),
            relative=server == RELATIVE,
            tests=tests,
            disputed=disputed,
            views=views,
            judged=_by_collection(judged),
            unjudged=_by_collection(unjudged),
            tested=len(judged),
            untested=len(unjudged),
            why_unjudged=_reasons([verdict.reason for _, verdict in unjudged]),
            injection=injection_sentences,
            injected=sections(INJECTED, records, plots),
            probes=probes,
            insides=insides,
            aligned=aligned,
            layers=layer_section(records, probes, plots),
            margin=margin,
            version=__version__,
            names=names,
            roles=evidence.outcomes,
            records=len(records),
        )
    )
    sources = {
        "experiments": list(design.experiments),
        "runs": list(design.sources),
        "probes": [*probes.used, *insides.used],
        **({"files": dict(design.files)} if design.files else {}),
    }
    texts = {
        PAGE: page,
        STATISTICS: dumps(records),
        RESULTS: results_csv(table, injected),
        SOURCES: json.dumps(sources, indent=1) + "\n",
    }
    if disputed.rows:
        texts[DISAGREEMENTS] = disputed_items.to_csv(evidence.disagreements)
    said = [sentence for outcome in outcomes for sentence in answers[outcome]]
    return Report(
        summary=(
            sentences.scope(records),
            *(answer.lead for answer in comparisons),
            *advice,
            *cautions,
            *said,
            *injection_sentences,
            *dependence,
        ),
        texts=texts,
        plots=tuple(plots),
    )


def _outcomes(primary: str, outcomes: Sequence[str]) -> tuple[str, ...]:
    """Return the outcomes in the order of the page: the primary one first."""
    return (primary, *(outcome for outcome in outcomes if outcome != primary))


def _contents(
    tests: Sequence[Section],
    views: Sequence[Section],
    compared: bool,
    claims: bool,
    injected: Sequence[str],
    disputed: bool,
) -> list[Entry]:
    def topics(shown: Sequence[Section], *more: Entry) -> tuple[Entry, ...]:
        return (*(Entry(section.topic.anchor, section.topic.title) for section in shown), *more)

    items = [Entry("disagreements", "Items on which the methods disagree")] if disputed else []
    entries = {
        Entry("answer", "Summary"): True,
        Entry("scores", "Scores", (Entry("runs", "Runs behind each cell"),)): compared,
        Entry("tests", "Tests", topics(tests, *items)): compared,
        Entry("claims", "Claims"): claims,
        Entry("injection", "Lexical injection"): bool(injected),
        Entry("layers", "Layers"): True,
        Entry("views", "Further results", topics(views)): compared,
        Entry("training", "Training"): compared,
        Entry("design", "Design and exclusions"): True,
    }
    return [entry for entry, shown in entries.items() if shown]


def _by_collection(judged: Sequence[tuple[Claim, Verdict]]) -> list[tuple[str, list[tuple[Claim, Verdict]]]]:
    """Return the claims grouped by the file that they are from, in their order, each group with its title."""
    groups = itertools.groupby(judged, key=lambda pair: pair[0].collection)
    return [(title or "Claims", list(pairs)) for title, pairs in groups]


def _reasons(reasons: Sequence[str]) -> str:
    """Return the most frequent of the reasons, each with its number."""
    lacking = "there are no runs with "
    counts = Counter(reasons).most_common()
    texts = [f"{reason} ({n})" if n > 1 else reason for reason, n in counts]
    first, *others = texts or [""]
    return enumerate_few([first, *(text.removeprefix(lacking) for text in others)], 3, by="; ")


def results_csv(*tables: pd.DataFrame) -> str:
    """Return all results as CSV, with every field of the runs except `artifact_uri`.

    A line is a run and an outcome; the source result of an adapter that serves several languages is one line with an
    empty language.
    """
    frames = [table.drop(columns="artifact_uri") for table in tables if len(table)]
    if not frames:
        return ""
    return to_csv(pd.concat(frames, ignore_index=True))


def write(report: Report, evidence: Evidence, folder: Path) -> None:
    """Write the report into a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in report.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for table in evidence.tables:
        formats.write(table, folder / "tables")
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for plot in report.plots:
        (figures / f"{plot.name}.svg").write_text(plot.svg, encoding="utf-8")
        (figures / f"{plot.name}.png").write_bytes(plot.png)


_KINDS = (
    "f1",
    "injection",
    "parameters",
    "efficiency",
    "inference",
    "forgetting",
    "hyperparameters",
    "detectors",
    "layer",
    "translations",
    "cka",
    "weights",
)


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
