"""Groups records and plots into the sections of the report, and formats records as rows of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from analysis.measures.lexical_injection import FORGOTTEN, OUTPUT, POOLED, RETAINED, RISE_ANALYSES
from analysis.plots import Plot
from analysis.records import Record
from analysis.stats.groupings import LETTERS
from analysis.tables.formats import number, p_value


class Topic(NamedTuple):
    """What a section of the report shows.

    Attributes:
        anchor: id of the section in the page.
        analyses: the values of `Record.analysis` that it shows; a final "*" matches any ending.
        plots: prefixes of the names of its plots.
    """

    anchor: str
    title: str
    description: str
    analyses: tuple[str, ...]
    plots: tuple[str, ...] = ()


TESTS = (
    Topic(
        "primary",
        "Which methods differ? The primary analysis",
        "Every pair of methods on its own error, moderated towards the mean error of all pairs as far as the data "
        "show the errors alike; p and intervals hold for all pairs at once. The unit is the adapter: one that serves "
        "several languages counts once. On these languages and ratios the error is that of the seeds; on others like "
        "them it is how the differences vary from block to block. Equivalence (TOST, Holm) is on the same errors.",
        ("primary", "groupings", "primary in *", "groupings in *", "other scope", "groupings, other scope"),
        ("differences", "blocks"),
    ),
    Topic(
        "omnibus",
        "The omnibus test",
        "F of the methods against method x block, over means in blocks of language and ratio, and pairs by Tukey on "
        "the same error. It assumes one error for all pairs; the answers above do not rest on it.",
        ("blocked",),
    ),
    Topic(
        "own-errors",
        "If pairs differ in their errors",
        "The primary analysis takes one error for all pairs. Where some pairs of methods go together from block to "
        "block and others do not, that is too much for the former and too little for the latter: here F has the "
        "degrees of freedom that this leaves (Greenhouse and Geisser), and each pair its own error, from few blocks.",
        ("own errors",),
    ),
    Topic(
        "mixed-model",
        "A mixed model of all scores",
        "The general form of the primary analysis: a linear mixed model (REML) with random effects of the adapter, of "
        "the seed in its block and, on blocks like these, of the block and of method x block; F and the degrees of "
        "freedom of Kenward and Roger. It takes one error for all methods; the answers above do not rest on it.",
        ("mixed model",),
    ),
    Topic(
        "equivalence",
        "Are they the same?",
        "A difference that was not found is no equality. Two one-sided tests (TOST, Holm-corrected) ask whether a pair "
        "is within the margin; Wellek's test asks it of all methods at once.",
        ("equivalence",),
    ),
    Topic(
        "ranks",
        "By ranks",
        "Friedman's test over the same blocks, and Nemenyi's for pairs: no assumption on the distribution of F1.",
        ("friedman",),
        ("ranks",),
    ),
    Topic(
        "items",
        "Item by item",
        "Each pair of methods on the same test items: McNemar's test, and a bootstrap over items, Holm-corrected.",
        ("paired",),
    ),
    Topic(
        "effects",
        "How large are the effects?",
        "Shares of variance that the methods explain, and standardised differences, with 95 % intervals.",
        ("effects",),
    ),
    Topic(
        "power",
        "What could this design have seen?",
        "The least differences that would have been found with a power of 80 %, and how many seeds the margin needs.",
        ("power",),
        ("power",),
    ),
    Topic(
        "replication",
        "The paper's own test",
        "One-way ANOVA over all runs and Tukey's HSD, as in “Which LoRA?”. It takes language and ratio for noise, so "
        "that its “no difference” says little; it is here for comparison. Its assumptions are checked, and Welch, "
        "Games-Howell, Kruskal-Wallis and Dunn stand beside it.",
        ("replication",),
    ),
)
VIEWS = (
    Topic("gain", "Gain", "Test F1 minus the untrained base model's, points.", ("gain",)),
    Topic(
        "floors",
        "Above the floor",
        "Test F1 minus that of the best shallow method on the same items (the majority's label, a classifier of the "
        "hypothesis alone or of word overlap; for questions a random candidate), points; and how many are no better.",
        ("above the floor", "floors"),
    ),
    Topic("languages", "By language", "Mean F1 over ratios and seeds, points.", ("F1 by language",)),
    Topic(
        "retention", "Retention of English", "English F1 minus that of ratio 0, same method and seed.", ("retention",)
    ),
    Topic("gap", "Transfer gap", "English minus target-language F1 of the same run.", ("transfer gap",)),
    Topic(
        "bought",
        "Gain per percent of target items",
        "Target-language F1 minus that of ratio 0, divided by the percent of target items.",
        ("gain per percent",),
    ),
    Topic("forgetting", "Forgetting", "What is lost on tasks that were not trained, points.", ("forgetting",)),
    Topic(
        "tuned",
        "Tuned against default",
        "The tuned arm against the default values (matched), and the method's own recommended ones, paired.",
        ("tuned",),
    ),
    Topic(
        "cost",
        "What F1 costs",
        "Mean F1 (statistic) over all runs against mean cost (estimate); the front is what no method improves on.",
        ("pareto",),
        ("cost",),
    ),
    Topic("agreement", "Agreement", "Do two methods answer the same items right?", ("agreement",)),
    Topic("calibration", "Calibration", "Distance of confidence and share of right answers (ECE).", ("calibration",)),
)
INJECTED = (
    Topic(
        "injected-output",
        "Do the methods differ in what they bring nearer?",
        "Rise of the centred gap of control pairs in the model's output, hundredths of a cosine, means over seeds in "
        "blocks of language; tested as F1 is in the primary analysis.",
        (RISE_ANALYSES[OUTPUT],),
    ),
    Topic(
        "injected-pooled",
        "And where the loss is?",
        "The same rise at the block whose output is trained, where that is one block for all methods.",
        (RISE_ANALYSES[POOLED],),
    ),
    Topic(
        "injected-lost",
        "What is forgotten",
        "What is lost of F1 on a task that was not trained, points below the base model.",
        (FORGOTTEN,),
    ),
    Topic(
        "injected-retained",
        "Do the methods differ in what they retain?",
        "F1 on that task after the training, in blocks of language; tested as F1 is in the primary analysis.",
        (RETAINED,),
    ),
)


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
    for topic in topics:
        matching = [record for record in records if _matches(record.analysis, topic.analyses)]
        reasons = _reasons([record for record in matching if _untested(record)])
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


def _reasons(records: Sequence[Record]) -> list[str]:
    """Return a sentence for each reason, with the tests that it prevents."""
    tests: dict[str, list[str]] = {}
    languages: dict[str, list[str]] = {}
    for record in records:
        why = record.note.removeprefix("no test: ")
        tests.setdefault(why, []).append(record.test)
        languages.setdefault(why, []).append({"en": "English", "tl": "target language"}.get(record.outcome, ""))
    sentences = []
    for why, names in tests.items():
        outcomes = " and ".join(filter(None, dict.fromkeys(languages[why])))
        sentences.append(f"{', '.join(dict.fromkeys(names))}{f' ({outcomes})' if outcomes else ''}: {why}")
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
        statistic = number(r.statistic)
        p = r.p if r.p_adjusted is None else r.p_adjusted
        lines.append(
            Line(
                outcome={"en": "en", "tl": "tl"}.get(r.outcome, ""),
                test=f"{r.test}: {r.note}" if r.test == LETTERS else r.test + setting,
                groups=groups,
                effect=number(r.effect),
                interval=interval,
                statistic=f"{statistic}{df}" if statistic else "",
                p=p_value(r.p),
                p_adjusted=p_value(r.p_adjusted),
                n="" if r.n is None else f"{r.n:,}",
                note=str(notes.index(r.note) + 1) if r.note in notes else "",
                strong=p is not None and p < 0.05,
            )
        )
    return lines, notes
