"""Draws the figures of a probe in black, grey and line styles, so that they are readable without colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from whichlora.data.language_names import language_name
from whichlora.probing.results import curve

if TYPE_CHECKING:
    import pandas as pd

    from whichlora.probing.choices import AlignmentChoices, LanguageChoices

_STYLES: dict[str, dict[str, Any]] = {
    "english": {"color": "black", "linestyle": "-", "marker": "o"},
    "target": {"color": "0.35", "linestyle": "--", "marker": "s"},
    "other": {"color": "0.6", "linestyle": ":", "marker": "^"},
}
_BAND = 0.18
_POSITIONS = {
    "all": "whole prompts",
    "item": "items without instruction",
    "last": "last position",
    "generated": "prompt and answer",
}


def language_figure(
    layers: pd.DataFrame, name: str, source: str | None, language: str, choices: LanguageChoices
) -> Figure:
    """Draw the shares of the source, the target and other languages at each layer, by token and by sequence.

    Bands are the intervals in `layers`; marks at the right edge are the ceilings, the shares in the true input.
    """
    positions = _POSITIONS[choices.positions]
    note = f"{choices.detector}, {positions}; bands: 95 % intervals over items; marks at the right: ceiling"
    figure, axes = _panels(2, f"{name}, read in {language}", note)
    labels = {"target": language, "other": "other"} | ({"english": language_name(source)} if source else {})
    for axis, level in zip(axes, ("token", "sequence"), strict=True):
        last = int(layers["layer"].max())
        for kind, style in ((kind, style) for kind, style in _STYLES.items() if kind in labels):
            rows = curve(layers, f"{level}/{kind}")
            blocks, ceiling = rows[rows["layer"] >= 0], rows[rows["layer"] < 0]
            _line(axis, blocks, labels[kind], style)
            axis.axhline(
                float(ceiling["value"].iloc[0]), color=style["color"], linewidth=0.6, linestyle=style["linestyle"]
            )
            axis.plot([last + 1.6], ceiling["value"], color=style["color"], marker=style["marker"], clip_on=False)
        axis.set(title=f"by {level}", ylim=(-0.02, 1.02), xlim=(-0.5, last + 1.6))
    axes[0].set_ylabel(f"share, mean over {_n_items(layers)} items")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return figure


def _panels(count: int, title: str, note: str) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(4.6 * count, 3.8), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.set_xlabel("after block")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(note, fontsize=8, color="0.3")
    return figure, axes


def _line(axis: Any, rows: pd.DataFrame, label: str, style: dict[str, Any]) -> None:
    axis.plot(rows["layer"], rows["value"], label=label, markersize=3, linewidth=1.3, **style)
    axis.fill_between(rows["layer"], rows["low"], rows["high"], color=style["color"], alpha=_BAND, linewidth=0)


def _n_items(layers: pd.DataFrame) -> int:
    return int(layers["n"].max())


def alignment_figure(
    layers: pd.DataFrame, name: str, languages: tuple[str, str], choices: AlignmentChoices, chance: Mapping[str, float]
) -> Figure:
    """Draw the cosines of translations and of random pairs, raw and centred, and the retrieval accuracy (P@1).

    `languages` are those of the first and the second text of a pair.
    """
    source, language = languages
    first = "first token excluded" if choices.first_token == "drop" else "first token included, as in the paper"
    figure, axes = _panels(3, f"{source} and {language}: {name}", f"{first}; bands: 95 % intervals over pairs")
    solid, dashed = _STYLES["english"], _STYLES["target"]
    for axis, space in zip(axes, ("raw", "centred"), strict=False):
        _line(axis, curve(layers, f"cosine/translation/{space}"), "translations", solid)
        _line(axis, curve(layers, f"cosine/random/{space}"), "random pairs", dashed)
        axis.set(title=f"cosine, {space}")
    axes[0].set_ylabel(f"mean over {_n_items(layers)} pairs")
    _line(axes[2], curve(layers, "p1/to/centred"), f"{source} to {language}", solid)
    _line(axes[2], curve(layers, "p1/from/centred"), f"{language} to {source}", dashed)
    axes[2].axhline(chance["chance/p1"], color="0.6", linestyle=":", label="chance")
    axes[2].set(title="translation found first, centred", ylim=(0, None))
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.set_xlabel("after block (-1: embedding)")
    return figure


def retrieval_figure(layers: pd.DataFrame, name: str, languages: Sequence[str], chance: float) -> Figure:
    """Draw mAP@20 of answer sentences by layer, raw and centred."""
    note = "first 20 results; bands: 95 % bootstrap over questions"
    figure, (axis,) = _panels(1, f"{name}\nXQuAD-R in {', '.join(languages)}", note)
    _line(axis, curve(layers, "map20/raw"), "raw", _STYLES["english"])
    _line(axis, curve(layers, "map20/centred"), "centred", _STYLES["target"])
    axis.axhline(chance, color="0.6", linestyle=":", label="chance")
    axis.set(ylabel=f"mAP of {_n_items(layers)} questions", ylim=(0, None), xlabel="after block (-1: embedding)")
    axis.legend(frameon=False)
    return figure


def similarity_figure(layers: pd.DataFrame, name: str, other: str, languages: tuple[str, str]) -> Figure:
    """Draw the CKA of two models' states at each layer, for the texts of each language."""
    source, language = languages
    figure, (axis,) = _panels(1, f"{name}\nand {other}", "unit length, unbiased estimate")
    _line(axis, curve(layers, "cka/english"), source, _STYLES["english"])
    _line(axis, curve(layers, "cka/translation"), language, _STYLES["target"])
    axis.set(ylabel=f"linear CKA of {_n_items(layers)} texts", ylim=(None, 1.02), xlabel="after block (-1: embedding)")
    axis.legend(frameon=False)
    return figure


def weight_figure(cells: Mapping[str, pd.DataFrame], name: str) -> Figure:
    """Draw a heat map by layer and module for each measure, darker for larger values, with separate scales.

    `cells` maps measures to tables (layers, modules). The titles of `overlap_out` and `overlap_in` give the ranges of
    `chance_out` and `chance_in`.
    """
    tables = {measure: table for measure, table in cells.items() if not measure.startswith("chance_")}
    figure = Figure(
        figsize=(3.4 * len(tables), 1.2 + 0.17 * max(len(t) for t in tables.values())), layout="constrained"
    )
    for axis, (measure, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        image = axis.imshow(table.to_numpy(), cmap="Greys", aspect="auto", vmin=0)
        axis.set_xticks(
            range(table.shape[1]), [c.removesuffix("_proj") for c in table.columns], rotation=45, fontsize=8
        )
        axis.set_yticks(range(0, len(table), 1 + len(table) // 16), table.index[:: 1 + len(table) // 16], fontsize=8)
        title = f"{measure.replace('_', ' ')}\n{_range(table)}"
        if measure.startswith("overlap_"):
            title += f"\nby chance {_range(cells[measure.replace('overlap_', 'chance_')])}"
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("block")
        figure.colorbar(image, ax=axis, shrink=0.8)
    figure.suptitle(name, fontsize=11)
    return figure


def _range(table: pd.DataFrame) -> str:
    return f"{float(np.nanmin(table)):.3g} to {float(np.nanmax(table)):.3g}"
