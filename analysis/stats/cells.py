"""Prepares the tidy table for tests: runs grouped by method, and cell means of methods in blocks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.units import adjusted_means, arrange, average_shared, link_shared

Samples = Mapping[str, NDArray[np.float64]]
"""The values of each group."""

BLOCK_COLUMNS = ("setting", "task", "model", "language", "tl_ratio")
"""Columns that define a block, if the table has them. Language is a fixed effect: three levels are too few to estimate
a variance component."""
UNTRAINED = "none"
"""The variant that stands for the untrained base model, which is not a method."""


@dataclass(frozen=True)
class Cells:
    """Cell means over seeds.

    Attributes:
        means: methods in columns, blocks in rows, adjusted for seeds that a method lacks; in points if the metric is
            F1; NaN for cells without a run.
        scores: one row per result. `block` is as in `units`; `part` is the result's own language and ratio.
        units: one row per adapter (method, block and seed) with its value. An adapter that serves several blocks has
            one row, the mean, and these blocks are one.
        runs: the same rows; with a single block, the column block names the seed.
        unit: what a block is.
        notes: sentences about missing and unbalanced cells.
    """

    means: pd.DataFrame
    scores: pd.DataFrame
    units: pd.DataFrame
    runs: pd.DataFrame
    unit: str
    notes: tuple[str, ...]

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.means.columns)

    @property
    def note(self) -> str:
        """The notes as one text that starts with the unit."""
        return "; ".join((f"blocks: {self.unit}", *self.notes))

    def within(self) -> tuple[float, int]:
        """Return the pooled variance between seeds within cells, and its degrees of freedom."""
        cells = self.runs.groupby(["method"] if self.unit == "seed" else ["method", "block"])["value"]
        df = int((cells.size() - 1).sum())
        return (float(((cells.size() - 1) * cells.var().fillna(0)).sum() / df) if df else float("nan")), df

    def seeds(self) -> float:
        """Return the harmonic mean of the number of runs per cell of language x ratio."""
        sizes = self.runs.groupby(["method"] if self.unit == "seed" else ["method", "block"]).size()
        return float(len(sizes) / (1 / sizes).sum()) if len(sizes) else 0.0


def in_points(metric: str) -> bool:
    """Return whether a metric is an F1, which reports give in points, so that the margin applies to it."""
    return metric.endswith("f1")


def rows(table: pd.DataFrame, outcome: str, metric: str = "f1") -> pd.DataFrame:
    """Return the rows of an outcome that have a metric, with its values in `value` (F1 in points, others unchanged).

    English results that one adapter has for several languages count once, with language "". The untrained base model
    is excluded.
    """
    if metric not in table or "method" not in table:
        return pd.DataFrame(columns=["method", "language", "tl_ratio", "seed", "value"])
    frame = table[(table["outcome"] == outcome) & table[metric].notna()]
    if "variant" in frame:
        frame = frame[frame["variant"] != UNTRAINED]
    if len(categories := frame.select_dtypes("category").columns):  # else unused categories come back as groups
        frame = frame.astype(dict.fromkeys(categories, object))
    scale = 100.0 if in_points(metric) else 1.0
    frame = frame.assign(value=frame[metric].astype(float) * scale)
    if outcome == "en" and "adapter" in frame:
        key = [c for c in ("setting", "task", "model", "method", "seed", "tl_ratio", "adapter") if c in frame]
        known = frame["adapter"].notna() & (frame["adapter"] != "")
        shared = known & (frame.groupby(key, dropna=False)["language"].transform("nunique") > 1)
        frame = frame.assign(language=frame["language"].mask(shared, ""))
        frame = frame[~(shared & frame.duplicated(key))]
    # A fixed order: the last digit of a sum depends on it, and the same runs must give the same numbers.
    return frame.sort_values([c for c in (*BLOCK_COLUMNS, "method", "seed", "value") if c in frame], kind="stable")


def samples(table: pd.DataFrame, outcome: str, metric: str = "f1") -> dict[str, NDArray[np.float64]]:
    """Return the values of all runs by method (one-way layout)."""
    frame = rows(table, outcome, metric)
    return {str(m): group.to_numpy() for m, group in frame.groupby("method", sort=True)["value"]}


def cells(table: pd.DataFrame, outcome: str, metric: str = "f1") -> Cells:
    """Return cell means over seeds, in blocks of language x ratio.

    Blocks that one adapter serves are merged. Seeds are crossed with methods (same items, same order), so the mean of a
    method that lacks a seed is adjusted for it: fit of method + seed within the block. If there is only one block, its
    seeds serve as blocks: all methods share the items and the initialisation of a seed.
    """
    results = rows(table, outcome, metric)
    results = results.assign(block=labels(results, BLOCK_COLUMNS), method=results["method"].astype(str))
    notes = []
    counts = results.groupby("block")["method"].nunique()
    single = sorted(counts.index[counts < 2])
    if 0 < len(single) < len(counts):
        notes.append(f"left out because they have one method only: {enumerate_few(single)}")
        results = results[~results["block"].isin(single)]
    linked = link_shared(results, BLOCK_COLUMNS, format_level)
    frame = average_shared(linked)
    several = any(frame[c].nunique() > 1 for c in ("setting", "task", "model") if c in frame)
    unit = "setting x language x ratio" if several else "language x ratio"
    units = frame
    if frame["block"].nunique() == 1:
        unit, frame = "seed", frame.assign(block="seed " + frame["seed"].astype(str))
    means, apart = _cell_means(frame)
    if apart:
        notes.append(f"left out because they share no seed with the others: {enumerate_few(apart)}")
    present = set(zip(frame["block"], frame["method"], strict=True))
    if missing := [f"{m} at {b}" for b, m in itertools.product(means.index, means) if (b, m) not in present]:
        notes.append(f"missing cells: {enumerate_few(missing)}")
    sizes = frame.groupby(["method", "block"]).size()
    if sizes.nunique() > 1:
        notes.append(f"unequal seeds: {sizes.min()} to {sizes.max()} runs a cell; means are adjusted for them")
    if len(results) > len(units):
        notes.append(f"{len(results)} results of {len(units)} adapters: those of one adapter are averaged")
    return Cells(means=means, scores=linked, units=units, runs=frame, unit=unit, notes=tuple(notes))


def _cell_means(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the adjusted mean of each method (columns) in each block (rows), and the cells that share no seed."""
    layout = arrange(frame)
    means = np.full((len(layout.blocks), len(layout.methods)), np.nan)
    apart = []
    for index, block in enumerate(layout.blocks):
        values = layout.values[:, index, :]
        has = ~np.isnan(values).all(axis=1)
        means[index, has], connected = adjusted_means(values[has])
        names = [layout.methods[position] for position in np.flatnonzero(has)]
        apart += [f"{name} at {block}" for name, ok in zip(names, connected, strict=True) if not ok]
    table = pd.DataFrame(means, index=pd.Index(layout.blocks, name="block"), columns=list(layout.methods))
    return table.dropna(how="all"), apart


def labels(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Label each row by those of the columns that vary in the frame."""
    varying = [c for c in columns if c in frame and frame[c].nunique(dropna=False) > 1]
    texts = [frame[c].map(format_level) for c in varying]
    label = pd.Series("all", index=frame.index) if not texts else texts[0]
    for text in texts[1:]:
        label = label + " " + text
    return label.astype(str)


def run_label(method: object, block: object, seed: object) -> str:
    """Return the name of a run: method, block (unless there is one only, "all") and seed."""
    return f"{method} {block} seed {seed}".replace(" all seed ", " seed ")


def format_level(value: object) -> str:
    """Return a column value as used in records; the empty language of shared English results becomes "any language"."""
    return f"{value:g}" if isinstance(value, float) else str(value) or "any language"


def points(margin: float) -> str:
    """Return "1 point" or "2 points"."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def enumerate_few(names: Sequence[str], most: int = 6, *, by: str = ", ") -> str:
    """Join names; count those beyond the first `most`."""
    rest = len(names) - most
    return by.join(names[:most]) + (f"{by}and {rest} more" if rest > 0 else "")


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return all pairs of names, in their order."""
    return list(itertools.combinations(names, 2))
