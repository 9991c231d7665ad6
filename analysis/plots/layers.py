"""Draws language shares by layer (the paper's Figures 1 to 3) and their correlation with F1 (Figure 4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.ticker import MaxNLocator

from analysis.decimals import fixed
from analysis.measures.layer_shares import (
    ANALYSIS,
    CRITICAL,
    KAPPA,
    PEARSON,
    SHARES_ANALYSIS,
    WITHIN_RATIOS,
    analysis_name,
    parse_column,
)
from analysis.naming import Names, names_in
from analysis.plots.style import Plot, Style, Styles, new_figure, render, shared_legend
from analysis.records import Record, find, is_significant
from analysis.runs.language_probes import CEILING, LEVELS, SHARES
from analysis.runs.methods import method_order
from analysis.runs.probe_runs import BASE, band_caption, mean_by_layer

MAX_RATIOS = 3
_BASE: dict[str, Any] = {"color": "#8a8a8a", "linewidth": 2.4, "linestyle": "-", "zorder": 1.5}
_CEILING: dict[str, Any] = {"color": "#000000", "linewidth": 0.9, "linestyle": (0, (6, 3)), "zorder": 1.2}
_STYLES = {"en": Style("#0072B2", "o", "-"), "tl": Style("#D55E00", "s", "--")}


def layer_plots(shares: pd.DataFrame, records: Sequence[Record], settings: Sequence[str], marks: Styles) -> list[Plot]:
    """Return the plots of shares for each language, by token and by sequence, and of correlations with F1."""
    plots = []
    names = names_in(records)
    for number, setting in enumerate(settings, 1):
        suffix, prefix = (f"-{number}", f"{setting}. ") if len(settings) > 1 else ("", "")
        in_setting = shares[shares["setting"] == setting]
        for language, level in itertools.product(sorted(set(in_setting["language"])), LEVELS):
            part = in_setting[(in_setting["language"] == language) & (in_setting["level"] == level)]
            name = f"layers-{language}-{level}{suffix}"
            share_records = find(records, analysis=analysis_name(SHARES_ANALYSIS, setting, settings))
            plots.append(
                share_curves(part, share_records, language, level, names=names, marks=marks, name=name, prefix=prefix)
            )
        for level in LEVELS:
            correlations = [
                r
                for r in records
                if r.analysis == analysis_name(ANALYSIS, setting, settings)
                and r.effect is not None
                and _level(r) == level
            ]
            if correlations:
                name = f"layer-correlation-{level}{suffix}"
                plots.append(correlation_curves(correlations, level, names=names, name=name, prefix=prefix))
    return plots


def share_curves(
    shares: pd.DataFrame,
    records: Sequence[Record],
    language: str,
    level: str,
    *,
    names: Names,
    marks: Styles,
    name: str,
    prefix: str,
) -> Plot:
    """Draw the shares of English and the target language after each block: a line per method, a column per ratio.

    `records` hold the detector's ceiling and agreement, for the caption.
    """
    runs = shares[shares["method"] != BASE]
    all_ratios = sorted(set(runs["tl_ratio"]))
    # The page is narrow: of many ratios only the lowest, the middle and the highest are drawn.
    ratios = (
        all_ratios
        if len(all_ratios) <= MAX_RATIOS
        else [all_ratios[0], all_ratios[len(all_ratios) // 2], all_ratios[-1]]
    )
    methods = method_order(runs)
    side_by_side = len(ratios) < 2  # with one ratio the panels of the two shares form a row
    shape = (1, 2) if side_by_side else (2, len(ratios))
    figure, grid = new_figure(
        0.75 + 2.05 * shape[0] + 0.17 * math.ceil((len(methods) + 2) / 3),
        nrows=shape[0],
        ncols=shape[1],
        sharex=True,
        sharey=False if side_by_side else "row",
        squeeze=False,
    )
    for column, ratio in enumerate(ratios or [math.nan]):
        for row, share in enumerate(SHARES):
            axes = grid[0, row] if side_by_side else grid[row, column]
            part = runs[(runs["tl_ratio"] == ratio) & (runs["share"] == share)]
            for position, method in enumerate(methods):
                curves = part[part["method"] == method]
                _draw_curve(axes, curves, method, marks[method], position, len(methods))
            _draw_references(axes, shares[shares["share"] == share])
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if side_by_side:
                axes.set_title(_language(share, names))
            elif row == 0:
                axes.set_title(f"{100 * ratio:g} % target items")
            if side_by_side or column == 0:
                axes.set_ylabel("share" if side_by_side else f"share of {_language(share, names)}")
            if row == len(SHARES) - 1 or side_by_side:
                axes.set_xlabel("after block")
    for axes in grid.flat:  # after drawing, because setting a limit disables autoscaling
        top = max(0.01, axes.get_ylim()[1])
        axes.set_ylim(-0.03 * top, top)
    shared_legend(figure, grid.flat[0])
    counts = runs[runs["tl_ratio"].isin(ratios)].groupby(["method", "tl_ratio"])["probe_id"].nunique()
    spread = band_caption(counts, base=len(runs) < len(shares))
    caption = f"{prefix}{spread}{_detector_sentences(records, language, level, names)}"
    if len(all_ratios) > len(ratios):
        caption += f" Of {len(all_ratios)} ratios {len(ratios)} are shown."
    return render(figure, name=name, title=f"Language shares by layer, {language}, by {level}.", caption=caption)


def correlation_curves(records: Sequence[Record], level: str, *, names: Names, name: str, prefix: str) -> Plot:
    """Draw Pearson's r of each layer's share with F1, a panel per language and one for all.

    Marks are filled where r is significant after adjustment.
    """
    limits = {r.groups[0]: r for r in find(records, test=CRITICAL)}
    panels = list(limits)
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    figure, grid = new_figure(0.8 + 2.1 * down, nrows=down, ncols=across, sharex=True, sharey=True, squeeze=False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        for share, style in _STYLES.items():
            tests = [
                r
                for r in records
                if r.test == PEARSON and r.groups[0] == panel and parse_column(r.groups[1])[0] == share
            ]
            layers, values = [parse_column(r.groups[1])[1] for r in tests], [r.effect or 0.0 for r in tests]
            line = style._asdict() | {"marker": "none"}
            by_block = dict(zip(layers, values, strict=True))
            # A block without a value breaks the line.
            blocks = range(min(layers, default=0), max(layers, default=0) + 1)
            axes.plot(blocks, [by_block.get(block, math.nan) for block in blocks], **line, linewidth=1)
            for significant in (False, True):
                chosen = [i for i, r in enumerate(tests) if is_significant(r) == significant]
                axes.plot(
                    [layers[i] for i in chosen],
                    [values[i] for i in chosen],
                    linestyle="none",
                    marker=style.marker,
                    color=style.color,
                    markersize=4,
                    markerfacecolor=style.color if significant else "white",
                )
            axes.plot([], [], label=f"{_language(share, names)} share", **style._asdict())
        limit = limits[panel].effect or 1.0
        for value in (limit, -limit):
            axes.axhline(
                value, color="#000000", linewidth=0.8, linestyle=":", label="critical |r|" * (value > 0) or None
            )
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.set_ylim(-1.02, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_title(f"{panel}, n = {limits[panel].n}")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"Pearson's r with {names.score}")
    for axes in grid[-1]:
        axes.set_xlabel("after block")
    for axes in grid.flat:  # the panel below may be hidden
        axes.tick_params(labelbottom=True)
    shared_legend(figure, grid.flat[0])
    caption = (
        f"{prefix}Filled marks: significant at 5 %, adjusted for all tests of the panel; dotted: the critical |r|."
    )
    if WITHIN_RATIOS in panels:
        caption += " Ratios apart: the mean of each language and ratio is subtracted."
    title = f"Correlation of {names.score} on {names.target} with the shares of each layer, by {level}."
    return render(figure, name=name, title=title, caption=caption)


def _detector_sentences(records: Sequence[Record], language: str, level: str, names: Names) -> str:
    """Return the caption's sentences on the detector's ceiling and its agreement with a second detector."""
    ceilings = {r.groups[2]: r.effect for r in find(records, test="ceiling") if r.groups[:2] == (language, level)}
    values = ", ".join(
        f"{_language(share, names)} {fixed(100 * ceiling, 1)} %"
        for share in SHARES
        if (ceiling := ceilings.get(share)) is not None
    )
    text = f"Dashed: the ceiling, the shares that the detector finds in the true input ({values})."
    for kappa in find(records, test=KAPPA, groups=(language, level)):
        sizes = kappa.note.partition(", mean")[0]
        text += f" CLD3 and Lingua agree with kappa {fixed(kappa.effect or 0.0, 2)} {sizes}."
    return text


def _draw_curve(axes: Any, curves: pd.DataFrame, method: str, style: Style, position: int, n_methods: int) -> None:
    """Draw the mean and its interval; markers are staggered over layers so that methods do not cover each other."""
    lines = mean_by_layer(curves[curves["layer"] != CEILING], bounds=(0.0, 1.0))
    every = max(1, len(lines) // 4)
    start = position * every // max(1, n_methods)
    axes.plot(lines.index, lines["mean"], label=method, markevery=(start, every), **style._asdict(), markersize=4.5)
    axes.fill_between(lines.index, lines["low"], lines["high"], color=style.color, alpha=0.13, linewidth=0)


def _draw_references(axes: Any, shares: pd.DataFrame) -> None:
    """Draw the base model, if it was probed, and the ceiling."""
    base = mean_by_layer(shares[(shares["method"] == BASE) & (shares["layer"] != CEILING)], bounds=(0.0, 1.0))
    if len(base):
        axes.plot(base.index, base["mean"], label=BASE, **_BASE)
        axes.fill_between(base.index, base["low"], base["high"], color=_BASE["color"], alpha=0.13, linewidth=0)
    ceiling = float(shares.loc[shares["layer"] == CEILING, "value"].mean())
    if math.isfinite(ceiling):
        axes.axhline(ceiling, label="ceiling", **_CEILING)


def _language(share: str, names: Names) -> str:
    return names.of(share).removeprefix("the ")


def _level(record: Record) -> str:
    """Return the level ("token" or "sequence") of a correlation record."""
    return record.groups[1] if record.test == CRITICAL else record.groups[1].split("/")[1]
