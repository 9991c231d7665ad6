"""A table as Markdown, LaTeX, CSV and HTML."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

BEST, SECOND = 1, 2
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
}


_LONG = 24
"""Characters beyond which a cell may take several lines."""


class Part(NamedTuple):
    """A piece of a cell; the best of a column is bold, the second is underlined."""

    text: str
    place: int = 0


Cell = tuple[Part, ...]
"""Parts that are shown with " / " between them."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table to print, and the numbers behind it.

    Attributes:
        name: file name without its end.
        rows: cells, each row as long as `header`.
        labels: how many of the first columns are words; the others are aligned to the right.
        numbers: one row per number, as the CSV file gives them.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int
    numbers: pd.DataFrame


def cell(*texts: str) -> Cell:
    """Return a cell of parts that are neither best nor second."""
    return tuple(Part(text) for text in texts)


def markdown(table: Table) -> str:
    """Return a GitHub-flavoured table under its title; Markdown has no underline, so HTML's is used."""
    marks = {0: "{}", BEST: "**{}**", SECOND: "<u>{}</u>"}

    def escape(text: str) -> str:
        return text.replace("|", r"\|").replace("*", r"\*")

    def show(parts: Cell) -> str:
        return " / ".join(marks[part.place].format(escape(part.text)) for part in parts)

    lines = [f"**{table.title}** {table.caption}", ""]
    lines.append(f"| {' | '.join(map(escape, table.header))} |")
    lines.append("|" + "".join("---|" if i < table.labels else "---:|" for i in range(len(table.header))))
    lines += [f"| {' | '.join(show(parts) for parts in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Return a `table` environment that needs the package booktabs and no other."""
    marks = {0: "{}", BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}"}

    def escape(text: str) -> str:
        return "".join(_LATEX.get(c, c) for c in text)

    def show(parts: Cell) -> str:
        return " / ".join(marks[part.place].format(escape(part.text)) for part in parts)

    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(escape, table.header)) + r" \\", r"\midrule"]
    lines += [" & ".join(show(parts) for parts in row) + r" \\" for row in table.rows]
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{escape(f'{table.title} {table.caption}')}}}"]
    return "\n".join([*lines, rf"\label{{tab:{table.name}}}", r"\end{table}"]) + "\n"


def csv(table: Table) -> str:
    """Return the numbers, one a line, unrounded."""
    return str(table.numbers.to_csv(index=False, lineterminator="\n"))


def to_html(table: Table) -> str:
    """Return a `figure` with the table in it, which scrolls on its own where the screen is narrow."""
    marks = {0: "{}", BEST: "<strong>{}</strong>", SECOND: "<u>{}</u>"}

    def show(parts: Cell, position: int) -> str:
        text = " / ".join(f'<span class="v">{marks[p.place].format(html.escape(p.text))}</span>' for p in parts)
        long = max(len(part.text) for part in parts) > _LONG
        if long:
            text = text.replace(",", ",<wbr/>")
        names = ["key"] * (position == table.labels - 1)  # stays where it is while the rest scrolls
        names += ["long"] * long
        shown = f' class="{" ".join(names)}"' if names else ""
        return f"<td{shown}>{text}</td>" if position >= table.labels else f'<th scope="row"{shown}>{text}</th>'

    firsts = [row[0] for row in table.rows]
    grouped = table.labels > 1 and len(set(firsts)) < len(firsts)

    def line(number: int) -> str:
        above = table.rows[number - 1] if number else ()
        row = table.rows[number]
        again = grouped and bool(above) and above[0] == row[0]
        first = "<td></td>" if again else show(row[0], 0)
        rest = "".join(show(parts, i) for i, parts in enumerate(row[1:], 1))
        start = "<tr>" if again or not grouped else '<tr class="group">'
        return f"{start}{first}{rest}</tr>"

    starts = ['<th scope="col" class="word">'] * table.labels + ['<th scope="col">'] * len(table.header)
    head = "".join(f"{start}{html.escape(text)}</th>" for start, text in zip(starts, table.header, strict=False))
    rows = "\n".join(map(line, range(len(table.rows))))
    caption = f"<figcaption><b>{html.escape(table.title)}</b> {html.escape(table.caption)}</figcaption>"
    body = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    return f'<figure class="table" id="{table.name}">{caption}<div class="scroll">{body}</div></figure>'


def write(table: Table, folder: Path) -> None:
    """Write the four forms into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    forms = {"md": markdown, "tex": latex, "csv": csv, "html": to_html}
    for end, form in forms.items():
        (folder / f"{table.name}.{end}").write_text(form(table), encoding="utf-8")


def number(value: float | None) -> str:
    """Write a number with as many digits as a reader needs; empty for none."""
    if value is None or not math.isfinite(value):
        return ""
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if round(size, 3) >= 0.1 or size == 0 else f"{value:.2g}"


def p_value(p: float | None) -> str:
    """Write p without the zero before the point."""
    return "" if p is None else "<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1)
