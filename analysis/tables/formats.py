"""Formats tables as Markdown, LaTeX, CSV and HTML, and numbers as text."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from analysis.decimals import ROUNDING, fixed
from whichlora.csv_text import to_csv
from whichlora.errors import one_line

BEST, SECOND = 1, 2
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
}

_MOST_STATISTIC = 10_000
_UNDERSCORE = re.compile(r"(?<![^\W_])_|_(?![^\W_])")
"""An underscore at the edge of a word, where Markdown takes it for emphasis."""
_LONG = 24
"""Length in characters from which a cell may wrap."""


class Part(NamedTuple):
    """A piece of a cell.

    Attributes:
        rank: BEST is printed bold, SECOND underlined; 0 for neither.
    """

    text: str
    rank: int = 0


Cell = tuple[Part, ...]
"""Parts, printed with " / " between them."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to print, with the unrounded numbers behind it.

    Attributes:
        name: file name without extension.
        rows: cells, each row as long as `header`.
        labels: number of leading columns that hold text; the others are right-aligned.
        numbers: a row per number, as written to the CSV file.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int
    numbers: pd.DataFrame


def cell(*texts: str) -> Cell:
    """Return a cell of unranked parts."""
    return tuple(Part(text) for text in texts)


def markdown(table: Table) -> str:
    """Return a GitHub-flavoured table below its title; the underline is HTML's `<u>`, as Markdown has none."""
    marks = {0: "{}", BEST: "**{}**", SECOND: "<u>{}</u>"}

    def escape(text: str) -> str:
        text = re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(one_line(text), quote=False))
        # A single underscore, or one within a word, marks nothing.
        return re.sub(_UNDERSCORE, r"\_", text) if len(re.findall(_UNDERSCORE, text)) > 1 else text

    def show(parts: Cell) -> str:
        return " / ".join(marks[part.rank].format(escape(part.text)) for part in parts)

    lines = [f"**{escape(table.title)}** {escape(table.caption)}", ""]
    lines.append(f"| {' | '.join(map(escape, table.header))} |")
    lines.append("|" + "".join("---|" if i < table.labels else "---:|" for i in range(len(table.header))))
    lines += [f"| {' | '.join(show(parts) for parts in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Return a `table` environment, which needs no LaTeX package but booktabs."""
    marks = {0: "{}", BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}"}

    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in one_line(text))

    def show(parts: Cell) -> str:
        return " / ".join(marks[part.rank].format(escape(part.text)) for part in parts)

    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(escape, table.header)) + r" \\", r"\midrule"]
    rows = [" & ".join(show(parts) for parts in row) + r" \\" for row in table.rows]
    lines += [f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows]  # else an argument of \\
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escape(f'{table.title} {table.caption}')}}}"]
    return "\n".join([*lines, rf"\label{{tab:{table.name}}}", r"\end{table}"]) + "\n"


def csv(table: Table) -> str:
    """Return the unrounded numbers, one per line."""
    return to_csv(table.numbers)


def to_html(table: Table) -> str:
    """Return a `figure` that holds the table and scrolls horizontally on narrow screens."""
    marks = {0: "{}", BEST: "<strong>{}</strong>", SECOND: "<u>{}</u>"}

    def show(parts: Cell, position: int) -> str:
        text = " / ".join(f'<span class="v">{marks[p.rank].format(html.escape(p.text))}</span>' for p in parts)
        long = max(len(part.text) for part in parts) > _LONG
        if long:
            text = text.replace(",", ",<wbr/>")
        classes = ["key"] * (position == table.labels - 1)  # sticky while the rest scrolls
        classes += ["long"] * long
        attribute = f' class="{" ".join(classes)}"' if classes else ""
        return f"<td{attribute}>{text}</td>" if position >= table.labels else f'<th scope="row"{attribute}>{text}</th>'

    firsts = [row[0] for row in table.rows]
    grouped = table.labels > 1 and len(set(firsts)) < len(firsts)

    def line(number: int) -> str:
        above = table.rows[number - 1] if number else ()
        row = table.rows[number]
        repeated = grouped and bool(above) and above[0] == row[0]
        first = show(row[0], 0)
        if repeated:  # hidden, but there when the rows are sorted by another column
            first = first.replace('<th scope="row"', '<th scope="row" class="repeated"', 1)
        rest = "".join(show(parts, i) for i, parts in enumerate(row[1:], 1))
        start = "<tr>" if repeated or not grouped else '<tr class="group">'
        return f"{start}{first}{rest}</tr>"

    starts = ['<th scope="col" class="word">'] * table.labels + ['<th scope="col">'] * len(table.header)
    head = "".join(f"{start}{html.escape(text)}</th>" for start, text in zip(starts, table.header, strict=False))
    rows = "\n".join(map(line, range(len(table.rows))))
    caption = f"<figcaption><b>{html.escape(table.title)}</b> {html.escape(table.caption)}</figcaption>"
    body = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<figure class="table" id="{table.name}">{caption}<div class="scroll">{body}</div></figure>'


def write(table: Table, folder: Path) -> None:
    """Write a table in all four formats into a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    formats = {"md": markdown, "tex": latex, "csv": csv, "html": to_html}
    for extension, format_table in formats.items():
        (folder / f"{table.name}.{extension}").write_text(format_table(table), encoding="utf-8")


def number(value: float | None) -> str:
    """Format a number: integers from 1,000 on, else two decimals or two significant digits; empty if not finite."""
    if value is None or not math.isfinite(value):
        return ""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size < ROUNDING:
        return "0.00"
    return fixed(value, 2) if round(size, 3) >= 0.1 else f"{value:.2g}"


def statistic(value: float | None) -> str:
    """Format a test statistic; above 10,000, where the error is all but zero, its digits mean nothing."""
    if value is None or not math.isfinite(value) or abs(value) <= _MOST_STATISTIC:
        return number(value)
    return f"> {_MOST_STATISTIC:,}" if value > 0 else f"< -{_MOST_STATISTIC:,}"


def p_value(p: float | None) -> str:
    """Format p without the leading zero."""
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)


def mean_and_sd(mean: float, sd: float, decimals: int) -> str:
    """Format a mean, with its standard deviation if that is finite."""
    return fixed(mean, decimals) + (f" ± {fixed(sd, decimals)}" if math.isfinite(sd) else "")


def best_and_second(values: Mapping[str, float], decimals: int) -> dict[str, int]:
    """Return BEST or SECOND for the names with these values, compared as printed so that equal prints rank equally."""
    printed = {name: round(value, decimals) for name, value in values.items()}
    if len(printed) < 2:
        return {}
    order: Sequence[float] = sorted(set(printed.values()), reverse=True)
    return {
        name: BEST if value == order[0] else SECOND
        for name, value in printed.items()
        if value == order[0] or (len(order) > 1 and value == order[1])
    }
