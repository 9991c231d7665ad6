"""Draws alignment probes by layer: translations against random pairs, and CKA between two models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.plots.style import (
    Plot,
    Style,
    Styles,
    method_styles,
    new_figure,
    render,
    shared_legend,
)
from analysis.runs.probe_runs import BASE, band_caption, mean_by_layer
from analysis.runs.representation_probes import CKA_MEASURES, MRR, P1, Group, cka_lines, comparable_groups

MAX_LINES = 8
_BASE = Style("#8a8a8a", "", "-")
_PANELS = (
    ("cosine/gap/centred", "gap, centred"),
    ("cosine/gap/raw", "gap, raw"),
    (f"{P1}/to/centred", "P@1, from {source}"),
    (f"{P1}/from/centred", "P@1, to {source}"),
    (f"{MRR}/to/centred", "MRR, from {source}"),
    (f"{MRR}/from/centred", "MRR, to {source}"),
)


def representation_plots(alignment: pd.DataFrame, marks: Styles) -> list[Plot]:
    """Return the plots of each group of alignment probes: alignment, and CKA where a second model was probed."""
    plots = []
    for group in comparable_groups(alignment):
        plots.append(alignment_curves(group, marks))
        if cka_lines(group):
            plots.append(similarity_curves(group))
    return plots


def alignment_curves(group: Group, marks: Styles) -> Plot:
    """Draw cosine gap and retrieval (P@1, MRR) of translations by layer."""
    drawn, omitted = _limit_lines(group.lines())
    figure, grid = new_figure(6.4 + 0.17 * math.ceil((len(drawn) + 1) / 2), nrows=3, ncols=2, sharex=True)
    for axes, (measure, title) in zip(grid.flat, _PANELS, strict=True):
        _draw_curves(axes, drawn, measure, marks)
        chance = group.rows.get(f"chance_{measure.partition('/')[0]}")
        level = 0.0 if chance is None else float(chance.mean())
        axes.axhline(level, color="#000000", linewidth=0.8, linestyle=":", label="chance")
        axes.set_title(title.format(source=group.source))
    for axes in grid[-1]:
        axes.set_xlabel("after block (-1: what enters the first)")
    shared_legend(figure, grid.flat[0], columns=2)
    caption = f"{group.about} {_bands(drawn)}The gap is the cosine of translations minus that of random pairs, so that "
    caption += f"chance is 0; P@1 and MRR are centred.{omitted}"
    title = f"Translations in {group.language} by layer."
    return render(figure, name=f"alignment{group.suffix}", title=title, caption=caption)


def similarity_curves(group: Group) -> Plot:
    """Draw linear CKA between two models' states of the same texts, by layer."""
    drawn, omitted = _limit_lines(cka_lines(group))
    figure, grid = new_figure(2.8 + 0.17 * len(drawn), ncols=2, sharey=True)
    for axes, measure, language in zip(grid.flat, CKA_MEASURES, (group.source, group.language), strict=True):
        _draw_curves(axes, drawn, measure, {})
        axes.set_title(language)
        axes.set_xlabel("after block (-1: what enters the first)")
    grid[0].set_ylabel("linear CKA")
    shared_legend(figure, grid[0], columns=1)
    caption = f"{group.about} 1: identical up to rotation and scale.{omitted}"
    if any(rows["probe_id"].nunique() > 1 for _, rows in drawn):
        caption += " Bands are 95 % intervals over seeds."
    title = f"States of two models, {group.source} and {group.language}."
    return render(figure, name=f"alignment-cka{group.suffix}", title=title, caption=caption)


def _limit_lines(lines: Sequence[tuple[str, pd.DataFrame]]) -> tuple[Sequence[tuple[str, pd.DataFrame]], str]:
    """Return at most `MAX_LINES` lines and the base model's, and a sentence for the caption if lines are omitted."""
    runs = [line for line in lines if line[0] != BASE]
    base = [line for line in lines if line[0] == BASE]
    omitted = f" Of {len(runs)} lines {MAX_LINES} are drawn; the table has all." if len(runs) > MAX_LINES else ""
    return [*runs[:MAX_LINES], *base], omitted


def _draw_curves(axes: Any, lines: Sequence[tuple[str, pd.DataFrame]], measure: str, marks: Styles) -> None:
    """Draw a measure of each line; `marks` are the methods' styles, used only if every line is a method."""
    names = [line for line, _ in lines if line != BASE]
    if not marks.keys() >= set(names):
        marks = method_styles(names)
    for position, (line, rows) in enumerate(lines):
        curve = mean_by_layer(rows[rows["measure"] == measure])
        every = max(1, len(curve) // 4)
        style = _BASE if line == BASE else marks[line]
        start = position * every // max(1, len(lines))
        axes.plot(curve.index, curve["mean"], label=line, markevery=(start, every), **style._asdict(), markersize=4.5)
        axes.fill_between(curve.index, curve["low"], curve["high"], color=style.color, alpha=0.13, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _bands(lines: Sequence[tuple[str, pd.DataFrame]]) -> str:
    """Return the caption's sentence on what the bands are intervals over."""
    counts = pd.Series([rows["probe_id"].nunique() for line, rows in lines if line != BASE], dtype="int64")
    return band_caption(counts, base=any(line == BASE for line, _ in lines))
