"""Draws F1 against the ratio, methods within blocks, and training loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.measures.shallow_baselines import BEST_FLOOR, best_floor
from analysis.naming import names_of
from analysis.plots.style import (
    Plot,
    Styles,
    label_ticks,
    max_lines,
    method_styles,
    new_figure,
    render,
    shared_legend,
)
from analysis.runs.methods import UNTRAINED, method_order
from analysis.stats.distributions import half_width

_GREY = "#777777"
_REFERENCES = {"base model": (0, (1, 2)), BEST_FLOOR: (0, (6, 2, 1, 2))}


def f1_by_ratio(table: pd.DataFrame, outcome: str, *, marks: Styles, name: str, prefix: str) -> Plot | None:
    """Draw F1 of each method against the share of target-language items, with intervals over seeds.

    There is a panel for each language; with a single ratio all runs are drawn by method instead.
    """
    rows = table[(table["outcome"] == outcome) & (table["variant"] != UNTRAINED)]
    languages = sorted(set(table["language"]) - {""})
    ratios = sorted(set(rows["tl_ratio"]))
    if rows.empty:
        return None
    methods = method_order(rows)
    if len(ratios) == 1:
        return _f1_by_method(rows, outcome, methods, languages, name=name, prefix=prefix)
    across = min(3, len(languages))
    down = math.ceil(len(languages) / across)
    figure, grid = new_figure(
        1.1 + 2.2 * down + 0.16 * len(methods) / 3, nrows=down, ncols=across, sharey=True, squeeze=False
    )
    positions = dict(zip(ratios, range(len(ratios)), strict=True))
    for axes, language in zip(grid.flat, languages, strict=False):
        panel = rows[rows["language"].isin([language, ""])]
        for position, method in enumerate(methods):
            shift = 0.3 * (position / max(1, len(methods) - 1) - 0.5)
            by_ratio = panel[panel["method"] == method].groupby("tl_ratio")["f1"]
            x = [positions[ratio] + shift for ratio in by_ratio.groups]
            intervals = [_interval(values) for _, values in by_ratio]
            axes.errorbar(
                x,
                [100 * values.mean() for _, values in by_ratio],
                yerr=np.array(intervals).T if intervals else None,
                label=method,
                capsize=2,
                elinewidth=0.9,
                **marks[method]._asdict(),
            )
        for label, values in _reference_f1(panel, outcome).items():
            known = values.dropna()
            axes.plot(
                [positions[ratio] for ratio in known.index],
                known,
                label=label,
                color=_GREY,
                linewidth=0.9,
                linestyle=_REFERENCES[label],
            )
        axes.set_title(language)
        label_ticks(axes.xaxis, [f"{100 * ratio:g} %" for ratio in ratios])
    for axes in grid.flat[len(languages) :]:
        axes.set_visible(False)
    low, high = grid[0, 0].get_ylim()
    grid[0, 0].set_ylim(max(0, low), min(101, high))  # with few seeds an interval may exceed the range of F1
    for axes in grid[:, 0]:
        axes.set_ylabel(_score_in(rows, outcome))
    grid[-1, min(across, len(languages)) // 2].set_xlabel("share of target-language items")
    shared_legend(figure, grid.flat[0])
    sizes = set(rows.groupby(["method", "language", "tl_ratio"]).size())
    spread = "Bars are 95 % intervals over seeds" if max(sizes) > 1 else "One seed, so without intervals"
    spread += " (without a bar: one seed)" * (1 in sizes and len(sizes) > 1)
    caption = f"{prefix}{spread}; points are offset horizontally for legibility."
    if _reference_f1(rows, outcome):
        caption += " Grey reference lines: the base model, and the best shallow method on the same items."
    return render(figure, name=name, title=f"{_score_in(rows, outcome)} against the ratio.", caption=caption)


def _f1_by_method(
    rows: pd.DataFrame,
    outcome: str,
    methods: Sequence[str],
    languages: Sequence[str],
    *,
    name: str,
    prefix: str,
) -> Plot:
    """Draw every run's F1 for a single ratio, a row per method."""
    figure, axes = new_figure(0.9 + 0.27 * len(methods) * max_lines(methods))
    marks = method_styles(languages)
    for language in languages:
        panel = rows[rows["language"].isin([language, ""])]
        y = [len(methods) - 1 - methods.index(method) for method in panel["method"]]
        line = {**marks[language]._asdict(), "linestyle": "none"}
        axes.plot(100 * panel["f1"], y, label=language, markerfacecolor="none", **line)
    for label, values in _reference_f1(rows, outcome).items():
        axes.axvline(values.mean(), color=_GREY, linewidth=0.9, linestyle=_REFERENCES[label], label=label)
    label_ticks(axes.yaxis, list(reversed(methods)))
    axes.set_ylim(-0.6, len(methods) - 0.4)
    axes.set_xlabel(_score_in(rows, outcome))
    shared_legend(figure, axes)
    caption = f"{prefix}One mark per run; there is a single ratio."
    return render(figure, name=name, title=f"{_score_in(rows, outcome)}.", caption=caption)


def _score_in(rows: pd.DataFrame, outcome: str) -> str:
    return names_of(rows).fill(f"{{Score}} in {names_of(rows).of(outcome)}")


def interaction(table: pd.DataFrame, outcome: str, *, marks: Styles, name: str, prefix: str) -> Plot | None:
    """Draw each method's difference from the mean of its block; parallel lines mean that there is no interaction."""
    rows = table[(table["outcome"] == outcome) & (table["variant"] != UNTRAINED)]
    means = 100 * rows.pivot_table(index=["language", "tl_ratio"], columns="method", values="f1")
    # Lines need complete data: drop blocks that lack a method or, if at most one is left, methods that lack a block.
    means = means.dropna() if len(means.dropna()) > 1 else means.dropna(axis=1)
    if means.shape[0] < 2 or means.shape[1] < 2:
        return None
    deviations = means.sub(means.mean(axis=1), axis=0)
    methods = [method for method in method_order(rows) if method in deviations]
    figure, axes = new_figure(2.6 + 0.16 * len(methods) / 3)
    for method in methods:
        axes.plot(range(len(deviations)), deviations[method], label=method, **marks[method]._asdict())
    labels = [f"{language or 'any'}\n{100 * ratio:g} %" for language, ratio in deviations.index]
    label_ticks(axes.xaxis, labels)
    axes.set_ylabel("difference from the block mean")
    axes.axhline(0, color="#777777", linewidth=0.8)
    shared_legend(figure, axes)
    caption = f"{prefix}A block is a language and a ratio. Parallel lines: no method x block interaction; where "
    caption += "lines cross, the order of the methods depends on the block."
    if means.size < rows.groupby(["language", "tl_ratio"]).ngroups * rows["method"].nunique():
        caption += " Blocks or methods with missing cells are left out."
    return render(figure, name=name, title=f"Methods within blocks, {names_of(rows).of(outcome)}.", caption=caption)


def training_curves(losses: Mapping[str, Sequence[pd.Series]], *, marks: Styles, name: str, prefix: str) -> Plot | None:
    """Draw training loss by step: the mean over seeds, smoothed by a running mean.

    Args:
        losses: by method, a series for each seed, indexed by step.
    """
    if not any(losses.values()):
        return None
    figure, axes = new_figure(2.6 + 0.16 * len(losses) / 3)
    for method, runs in losses.items():
        if not runs:
            continue
        mean = pd.concat(runs, axis=1).mean(axis=1)
        smooth = mean.rolling(max(1, len(mean) // 20), center=True, min_periods=1).mean()
        axes.plot(smooth.index, smooth, label=method, markevery=max(1, len(smooth) // 8), **marks[method]._asdict())
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss of the answer tokens")
    axes.set_ylim(bottom=0)
    shared_legend(figure, axes)
    caption = f"{prefix} Mean over seeds of running means over a twentieth of the steps."
    return render(figure, name=name, title="Training loss.", caption=caption)


def _reference_f1(rows: pd.DataFrame, outcome: str) -> dict[str, pd.Series]:
    """Return F1 in points by ratio for the base model and the best shallow method, as far as known."""
    floors = best_floor(rows, outcome)
    references = {
        "base model": 100 * rows.groupby("tl_ratio")["base_f1"].mean(),
        BEST_FLOOR: floors.groupby("tl_ratio")["floor"].mean(),
    }
    return {label: values for label, values in references.items() if values.notna().any()}


def _interval(values: pd.Series) -> tuple[float, float]:
    """Return how far a 95 % t interval reaches below and above the mean, in points; 0 with one seed."""
    if len(values) < 2:
        return 0.0, 0.0
    half = 100 * float(half_width(values.std(), len(values)))
    return half, half
