"""Defines the style of all plots and renders them.

Methods differ in marker and line as well as in colour, and figures are small enough for a phone's screen.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib import style
from matplotlib.figure import Figure

from analysis.plots.lettering import transliterate

_LABEL_CHARACTERS = 30
_LINE_INCHES = 0.16
WIDTH = 5.2
"""Width in inches: on a screen 400 pixels wide, a label of 8.5 points is still about 9 pixels high."""

_SETTINGS: dict[Any, Any] = {
    **{"font.size": 8.5, "axes.titlesize": 9, "legend.fontsize": 8.5, "figure.dpi": 100, "savefig.dpi": 150},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd"},
    **{"grid.linewidth": 0.6, "axes.axisbelow": True, "lines.linewidth": 1.4, "lines.markersize": 5.5},
    **{"svg.hashsalt": "whichlora", "svg.fonttype": "path", "figure.constrained_layout.use": True},
    "font.family": "DejaVu Sans",
}
# The palette of Okabe and Ito without yellow, which is hard to see on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
_LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)))


def plot_style() -> AbstractContextManager[None]:
    """Return a context with the report's matplotlib style, independent of the settings of the user and the process."""
    return style.context(_SETTINGS, after_reset=True)


class Style(NamedTuple):
    """The colour, marker and line of a method, as keywords of `Axes.plot`."""

    color: str
    marker: str
    linestyle: Any


Styles = dict[str, Style]
"""The style of each method, the same in every plot of a report."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A rendered plot.

    Attributes:
        name: file name without extension, and id in the page.
        svg: an `svg` element for inclusion in HTML.
    """

    name: str
    title: str
    caption: str
    svg: str
    png: bytes


def method_styles(methods: Sequence[str]) -> Styles:
    """Return a style for each method; up to 11 methods differ in marker, up to 77 in marker and colour."""
    cycles = zip(itertools.cycle(_COLOURS), itertools.cycle(_MARKERS), itertools.cycle(_LINES), strict=False)
    return {method: Style(*style) for method, style in zip(methods, cycles, strict=False)}


def new_figure(height: float, **options: Any) -> tuple[Figure, Any]:
    """Return a figure `height` inches high and its axes (an array if `options` set `nrows` or `ncols`)."""
    with plot_style():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.subplots(**options)


def shared_legend(figure: Figure, axes: Any, columns: int = 3) -> None:
    """Put one legend below a figure, with the handles of these axes."""
    handles, labels = axes.get_legend_handles_labels()
    labels = [wrap(label) for label in labels]
    lines = max_lines(labels)
    if lines > 1:
        columns = min(columns, 2)
        figure.set_figheight(figure.get_figheight() + _LINE_INCHES * lines * math.ceil(len(labels) / columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, handlelength=3.2)


def label_ticks(axis: Any, labels: Sequence[str]) -> None:
    """Label the positions 0, 1, 2, ... of an axis.

    Labels are transliterated here because matplotlib recreates tick labels when it draws.
    """
    axis.set_ticks(range(len(labels)), [wrap(transliterate(label)) for label in labels])


def max_lines(labels: Sequence[str], characters: int = _LABEL_CHARACTERS) -> int:
    """Return how many lines the longest of some labels takes; figures with a row for each grow by it."""
    return max((wrap(label, characters).count("\n") + 1 for label in labels), default=1)


def wrap(label: str, characters: int = _LABEL_CHARACTERS) -> str:
    """Break a long name, as that of a method with many settings, into lines, so that it leaves room for the axes."""
    return (
        "\n".join(
            line for part in label.splitlines() for line in textwrap.wrap(part, characters, break_on_hyphens=False)
        )
        or label
    )


def render(figure: Figure, *, name: str, title: str, caption: str) -> Plot:
    """Render a figure as SVG and PNG, reproducible to the byte, with its texts transliterated."""
    with plot_style():
        for text in figure.findobj(mpl.text.Text):
            text.set_text(transliterate(text.get_text()))
            text.set_parse_math(False)  # dollar signs in names are not math
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # keep one layout for both formats
        vector, bitmap = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(bitmap, format="png", metadata={"Software": None})
    return Plot(name=name, title=title, caption=caption, svg=_inline(vector.getvalue(), name), png=bitmap.getvalue())


def _inline(svg: str, name: str) -> str:
    """Turn an SVG file into an element that can share a page with others: without prologue, ids prefixed by `name`."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
