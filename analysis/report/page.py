"""Composes and writes the report: a self-contained HTML page, `statistics.json`, and tables and figures as files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from analysis.evidence import OUTCOMES, Evidence
from analysis.plots import Plot
from analysis.records import dumps
from analysis.report import sentences, summary_table
from analysis.report.layers import layer_section
from analysis.report.sections import INJECTED, TESTS, VIEWS, sections
from analysis.runs.design import Design
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.methods import UNTRAINED, method_order
from analysis.runs.representation_probes import RepresentationProbes
from analysis.tables import formats, injection
from analysis.tables.paper import arms_by_method
from whichlora import __version__
from whichlora.tracking.csv_text import to_csv

PAGE, STATISTICS, RESULTS, SOURCES = "report.html", "statistics.json", "results.csv", "sources.json"
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


def compose(
    table: pd.DataFrame,
    injected: pd.DataFrame,
    design: Design,
    probes: LanguageProbes,
    insides: RepresentationProbes,
    evidence: Evidence,
    plots: list[Plot],
) -> Report:
    """Return the report. It holds no timestamp, so the same input gives the same bytes."""
    records, margin = evidence.records, evidence.margin
    compared = bool(len(table))
    answers = {outcome: sentences.answer(records, outcome, margin) if compared else [] for outcome in OUTCOMES}
    injection_sentences = injection.sentences(injected, records)
    advice = sentences.advice(records)
    cautions = sentences.cautions(records, design.synthetic)
    tables = {kind: [t for t in evidence.tables if t.name.startswith(kind)] for kind in _KINDS}
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            design=design,
            compared=compared,
            scope=sentences.scope(records),
            answers=answers,
            advice=advice,
            cautions=cautions,
            rows=summary_table.summary_rows(
                records, method_order(table[table["variant"] != UNTRAINED]), arms_by_method(table)
            ),
            settings=sorted(set(table["setting"])),
            tables={kind: [formats.to_html(t) for t in of_kind] for kind, of_kind in tables.items()},
            scores=[plot for plot in plots if plot.name.startswith("f1")],
            losses=[plot for plot in plots if plot.name.startswith("loss")],
            tests=sections(TESTS, records, plots),
            views=sections(VIEWS, records, plots),
            judged=evidence.judged,
            injection=injection_sentences,
            injected=sections(INJECTED, records, plots),
            probes=probes,
            insides=insides,
            aligned=[plot for plot in plots if plot.name.startswith("alignment")],
            layers=layer_section(records, probes, plots),
            margin=margin,
            version=__version__,
            records=len(records),
        )
    )
    sources = {
        "experiments": list(design.experiments),
        "runs": list(design.sources),
        "probes": [*probes.used, *insides.used],
    }
    return Report(
        summary=(sentences.scope(records), *answers["en"], *answers["tl"], *injection_sentences, *advice, *cautions),
        texts={
            PAGE: page,
            STATISTICS: dumps(records),
            RESULTS: results_csv(table, injected),
            SOURCES: json.dumps(sources, indent=1) + "\n",
        },
        plots=tuple(plots),
    )


def results_csv(*tables: pd.DataFrame) -> str:
    """Return all results as CSV, with every field of the runs except `artifact_uri`.

    A line is a run and an outcome; the English result of an adapter that serves several languages is one line with an
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
