"""Draws the results of the tests: differences with the margin, mean ranks, and the minimum detectable difference."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import scikit_posthocs
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Transform, offset_copy

from analysis.naming import OUTCOMES, names_in
from analysis.plots.style import Plot, label_ticks, max_lines, new_figure, plot_style, render, wrap
from analysis.records import Record, find
from analysis.stats import differences, power, ranks
from analysis.stats.cells import points

MAX_PAIRS = 36
"""Number of pairs of nine methods; of more pairs, only those with the best method are drawn."""

_RANKED_CHARACTERS = 22


def forest(records: Sequence[Record], outcome: str, *, name: str, margin: float) -> Plot | None:
    """Draw the differences of all pairs in the primary analysis with their intervals, and the margin."""
    of_outcome = find(records, outcome=outcome)
    pairs = [r for r in differences.pair_tests(of_outcome) if r.interval]
    if not pairs:
        return None
    equivalent = {
        frozenset(r.groups)
        for r in find(of_outcome, analysis=differences.PRIMARY, test=differences.SAME)
        if r.p_adjusted is not None and r.p_adjusted < 0.05
    }
    what = "every pair of methods"
    if len(pairs) > MAX_PAIRS:
        best = max(differences.mean_records(of_outcome), key=lambda r: r.effect or 0.0).groups[0]
        pairs = [r for r in pairs if best in r.groups]
        what = f"every method and the best, {best}"
    lines = []
    for record in pairs:
        a, b = record.groups
        low, high = record.interval or (0.0, 0.0)
        effect = record.effect or 0.0
        if effect < 0:  # name the better method first
            a, b, low, effect, high = b, a, -high, -effect, -low
        lines.append((effect, low, high, f"{a} − {b}", frozenset(record.groups) in equivalent, low > 0))
    lines.sort(key=lambda line: (line[0], line[3]))
    figure, axes = new_figure(0.9 + 0.2 * len(lines) * max_lines([line[3] for line in lines]))
    axes.axvspan(-margin, margin, color="#e4e4e4", zorder=0, label=f"margin ±{margin:g}")
    axes.axvline(0, color="#555555", linewidth=0.8)
    for y, (effect, low, high, _, same, differs) in enumerate(lines):
        colour = "#D55E00" if differs else "#0072B2" if same else "#666666"
        marker = "s" if differs else "o" if same else "D"
        axes.plot([low, high], [y, y], color=colour, linewidth=2.4 if differs else 1.2)
        axes.plot(effect, y, marker=marker, color=colour, markerfacecolor=colour if differs or same else "white")
    label_ticks(axes.yaxis, [line[3] for line in lines])
    axes.set_ylim(-0.7, len(lines) - 0.3)
    axes.set_xlabel(f"difference of {names_in(records).score} in {names_in(records).of(outcome)}, points")
    caption = (
        f"Differences of {what} in the primary analysis, with 95 % CIs simultaneous over all pairs. Square and thick "
        f"line: a significant difference. Filled circle: equivalent within the shaded margin of ±{points(margin)} "
        "(TOST, Holm). Open diamond: neither."
    )
    return render(figure, name=name, title=f"Differences in {names_in(records).of(outcome)}.", caption=caption)


def critical_difference(records: Sequence[Record], outcome: str, *, name: str) -> Plot | None:
    """Draw mean ranks over blocks, with bars joining methods that do not differ significantly (Nemenyi; "
    "Demsar 2006)."""
    friedman = find(records, outcome=outcome, analysis="friedman")
    mean = {r.groups[0]: r.effect for r in find(friedman, test=ranks.RANK) if r.effect is not None}
    critical = next(iter(find(friedman, test=ranks.CRITICAL)), None)
    if len(mean) < 3 or critical is None or critical.effect is None:
        return None
    width = critical.effect
    # Methods are passed as numbers: scikit-posthocs keeps them in sets, whose order varies between processes for str.
    names, by_number = list(mean), pd.Series(list(mean.values()))
    p = pd.DataFrame(1.0, index=by_number.index, columns=by_number.index)
    for record in find(friedman, test="Nemenyi"):
        a, b = map(names.index, record.groups)
        p.loc[a, b] = p.loc[b, a] = 1.0 if record.p_adjusted is None else record.p_adjusted
    figure, axes = new_figure(1.4 + 0.17 * len(mean) * max_lines(names, _RANKED_CHARACTERS))
    with plot_style():
        diagram = scikit_posthocs.critical_difference_diagram(
            by_number,
            p,
            ax=axes,
            label_fmt_left="{label}",
            label_fmt_right="{label}",
            text_h_margin=0.02,
            color_palette=["#000000"] * len(mean),
            crossbar_props={"color": "#0072B2", "linewidth": 3},
            marker_props={"zorder": 3, "s": 16},
            elbow_props={"linewidth": 0.9},
        )
    for label in diagram["labels"]:
        method = names[int(label.get_text())]
        rank = f"({mean[method]:.2f})"
        text = f"{method} {rank}" if label.get_ha() == "right" else f"{rank} {method}"
        lines = wrap(text, _RANKED_CHARACTERS).splitlines()
        label.set_text("\n".join(f"{line} " if label.get_ha() == "right" else f" {line}" for line in lines))
    left, right = min(mean.values()), max(mean.values())
    end = max(right, left + width)  # with few blocks the ruler may exceed the range of ranks
    axes.set_xlim(left - 0.03 * (end - left), end + 0.03 * (end - left))

    def above(height: float) -> Transform:
        return offset_copy(axes.get_xaxis_transform(), fig=figure, y=height, units="points")

    ruler = {"color": "#000000", "linewidth": 1.6, "marker": "|", "clip_on": False}
    axes.plot([left, left + width], [1, 1], transform=above(32), **ruler)
    axes.text(left, 1, f"critical difference {width:.2f}", va="bottom", fontsize=8.5, transform=above(36))
    axes.grid(False)
    caption = (
        f"Mean ranks over {critical.n} blocks, 1 is the best. A bar joins methods that do not differ significantly "
        f"(Nemenyi); the critical difference is {width:.2f} ranks."
    )
    return render(figure, name=name, title=f"Mean ranks in {names_in(records).of(outcome)}.", caption=caption)


def detectable_curve(records: Sequence[Record], *, name: str, margin: float) -> Plot | None:
    """Draw the minimum detectable difference of a pair against the number of seeds (or blocks), and the margin."""
    lines = {outcome: find(records, outcome=outcome, analysis="power", test=power.BY_SIZE) for outcome in OUTCOMES}
    lines = {outcome: curve for outcome, curve in lines.items() if curve}
    if not lines:
        return None
    figure, axes = new_figure(2.6)
    names = names_in(records)
    ends: list[float] = [margin]
    sizes: list[int] = []
    for (outcome, curve), (colour, marker, line) in zip(
        lines.items(), (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", "-.")), strict=False
    ):
        x, y = [r.n or 0 for r in curve], [r.effect or 0.0 for r in curve]
        axes.plot(x, y, color=colour, linestyle=line, label=names.of(outcome))
        for present in find(records, outcome=outcome, analysis="power", test=power.PRESENT):
            axes.plot(present.n, present.effect, marker=marker, color=colour, markersize=8, linestyle="none")
        sizes, ends = [*sizes, *x], [*ends, *y]
    axes.axhline(margin, color="#555555", linewidth=1, linestyle=":", label=f"margin, {points(margin)}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(ends) / 1.3, max(ends) * 1.15)
    for axis, low, high in ((axes.xaxis, min(sizes), max(sizes)), (axes.yaxis, *axes.get_ylim())):
        ticks = [step * 10.0**order for order in range(-3, 5) for step in (1, 2, 5)]
        axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    unit = "blocks of language and ratio" if "blocks" in next(iter(lines.values()))[0].note else "seeds in a cell"
    axes.set_xlabel(unit)
    axes.set_ylabel(f"MDD of a pair, {names.score} points")
    axes.legend(frameon=False, handlelength=3.2)
    needed = [
        f"{r.n:,} in {names.of(outcome)}"
        for outcome in lines
        for r in find(records, outcome=outcome, analysis="power", test=power.NEEDED)
    ]
    caption = (
        f"Minimum detectable difference (MDD) of a pair in the primary analysis at 80 % power against the number of "
        f"{unit}, both axes logarithmic; the large marks are this design. The pair has the median error. "
        f"{f'To detect {points(margin)}: ' + ' and '.join(needed) + '.' if needed else ''}"
    )
    return render(figure, name=name, title="Minimum detectable difference.", caption=caption.strip())
