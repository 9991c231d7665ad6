"""Groups records and plots into the sections of the report, and formats records as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from analysis.naming import Names, names_in
from analysis.plots import Plot
from analysis.records import Record
from analysis.report.topics import Topic
from analysis.stats.groupings import LETTERS
from analysis.tables.formats import number, p_value, statistic


class Line(NamedTuple):
    """A record as a row of text.

    Attributes:
        note: number of its footnote, or empty.
        strong: whether p, adjusted where it is, is below .05.
    """

    outcome: str
    test: str
    groups: str
    effect: str
    interval: str
    statistic: str
    p: str
    p_adjusted: str
    n: str
    note: str
    strong: bool


class MethodMeans(NamedTuple):
    """A method's mean with its interval, as text, on each outcome."""

    method: str
    en: str
    tl: str


class Section(NamedTuple):
    """A topic with its results.

    Attributes:
        brief: the methods' means.
        lines: all records.
        notes: footnotes of the lines.
        reasons: why some tests could not be made.
    """

    topic: Topic
    brief: list[MethodMeans]
    lines: list[Line]
    notes: list[str]
    reasons: list[str]
    plots: list[Plot]


def sections(topics: Iterable[Topic], records: Sequence[Record], plots: Sequence[Plot]) -> list[Section]:
    """Return a section for each topic that has records."""
    shown = []
    names = names_in(records)
    for topic in topics:
        topic = topic._replace(title=names.fill(topic.title), description=names.fill(topic.description))
        matching = [record for record in records if _matches(record.analysis, topic.analyses)]
        reasons = _reasons([record for record in matching if _untested(record)], names)
        lines, notes = _lines([record for record in matching if not _untested(record)])
        topic_plots = [plot for plot in plots if plot.name.startswith(topic.plots)] if topic.plots else []
        if lines or reasons:
            shown.append(Section(topic, _method_means(matching), lines, notes, reasons, topic_plots))
    return shown


def _method_means(records: Sequence[Record]) -> list[MethodMeans]:
    """Return the records of a single method's mean (or ECE), both outcomes side by side."""
    shown: dict[str, dict[str, str]] = {}
    for r in records:
        if len(r.groups) == 1 and r.test in ("mean", "ECE") and r.effect is not None:
            interval = "" if r.interval is None else f" ({number(r.interval[0])} to {number(r.interval[1])})"
            shown.setdefault(r.groups[0], {})[r.outcome] = number(r.effect) + interval
    return [MethodMeans(method, texts.get("en", ""), texts.get("tl", "")) for method, texts in shown.items()]


def _matches(analysis: str, patterns: tuple[str, ...]) -> bool:
    return any(analysis == name or (name.endswith("*") and analysis.startswith(name[:-1])) for name in patterns)


def _untested(record: Record) -> bool:
    return record.note.startswith("no test: ")


def _reasons(records: Sequence[Record], names: Names) -> list[str]:
    """Return a sentence for each reason, with the tests that it prevents."""
    tests: dict[str, list[str]] = {}
    languages: dict[str, list[str]] = {}
    for record in records:
        why = record.note.removeprefix("no test: ")
        tests.setdefault(why, []).append(record.test)
        language = names.of(record.outcome).removeprefix("the ") if record.outcome in ("en", "tl") else ""
        languages.setdefault(why, []).append(language)
    sentences = []
    for why, prevented in tests.items():
        outcomes = " and ".join(filter(None, dict.fromkeys(languages[why])))
        sentences.append(f"{', '.join(dict.fromkeys(prevented))}{f' ({outcomes})' if outcomes else ''}: {why}")
    return sentences


def _lines(records: Sequence[Record]) -> tuple[list[Line], list[str]]:
    """Return the records as rows, and their footnotes."""
    notes = list(dict.fromkeys(record.note for record in records if record.note and record.test != LETTERS))
    everyone = {len(record.groups) for record in records if len(record.groups) > 2}
    lines = []
    for r in records:
        setting = f" ({r.analysis.partition(' in ')[2]})" if " in " in r.analysis else ""
        between = ", " if r.test == "mean" else " − "  # a mean is of one cell; other pairs are differences
        groups = "all" if len(r.groups) in everyone and r.test != "mean" else between.join(r.groups)
        interval = "" if r.interval is None else f"{number(r.interval[0])} to {number(r.interval[1])}"
        df = "" if r.df is None else f" ({', '.join(number(d) if d % 1 else f'{d:,.0f}' for d in r.df)})"
        value = statistic(r.statistic)
        p = r.p if r.p_adjusted is None else r.p_adjusted
        lines.append(
            Line(
                outcome=r.outcome,
                test=f"{r.test}: {r.note}" if r.test == LETTERS else r.test + setting,
                groups=groups,
                effect=number(r.effect),
                interval=interval,
                statistic=f"{value}{df}" if value else "",
                p=p_value(r.p),
                p_adjusted=p_value(r.p_adjusted),
                n="" if r.n is None else f"{r.n:,}",
                note=str(notes.index(r.note) + 1) if r.note in notes else "",
                strong=p is not None and p < 0.05,
            )
        )
    return lines, notes
