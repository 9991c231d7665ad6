"""Makes adapters the units of the tests: averages the results of one adapter, and adjusts means for what is missing.

An adapter at ratio 0 is trained once and scored in every target language. Its luck is common to these results, so they
are one unit: the blocks that it serves become one block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Layout(NamedTuple):
    """Values of units by method, block and seed; `values` has this shape, with NaN where there is no unit."""

    methods: tuple[str, ...]
    blocks: tuple[str, ...]
    seeds: tuple[object, ...]
    values: NDArray[np.float64]


def arrange(frame: pd.DataFrame) -> Layout:
    """Return the units of a frame (method, block, seed, value; one row each) as an array."""
    axes = [pd.factorize(frame[key], sort=True) for key in ("method", "block", "seed")]
    values = np.full([len(names) for _, names in axes], np.nan)
    values[tuple(codes for codes, _ in axes)] = frame["value"].to_numpy(dtype=float)
    methods, blocks, seeds = (tuple(names) for _, names in axes)
    return Layout(tuple(map(str, methods)), tuple(map(str, blocks)), seeds, values)


def link_shared(frame: pd.DataFrame, columns: Sequence[str], format_level: Callable[[object], str]) -> pd.DataFrame:
    """Return the frame with the blocks that an adapter links merged into one; `part` is the block without that.

    Args:
        frame: one row per result, with method, seed, value and block (a label), and adapter if it is known.
        columns: the columns that define a block.
        format_level: the function that formats a value of these columns.
    """
    merged = merged_labels(frame, columns, format_level)
    return frame.assign(part=frame["block"], block=frame["block"].map(lambda label: merged.get(label, label)))


def average_shared(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method, block and seed, from a frame of `link_shared`: the mean over parts of a block."""
    key = ["block", "method", "seed"]
    if not frame.duplicated(key).any():
        return frame.drop(columns="part")
    repeated = frame["block"].isin(set(frame.loc[frame.duplicated(key), "block"]))
    parts = [frame[~repeated]]
    for _, rows in frame[repeated].groupby("block", sort=True):
        first = rows.drop_duplicates(["method", "seed"])
        table = rows.pivot_table(index=["method", "seed"], columns="part", values="value", aggfunc="mean")
        means = pd.Series(adjusted_means(table.to_numpy(dtype=float))[0], index=table.index)
        own = means.reindex(pd.MultiIndex.from_frame(first[["method", "seed"]])).to_numpy()
        parts.append(first.assign(value=own).dropna(subset="value"))
    return pd.concat(parts, ignore_index=True).drop(columns="part")


def adjusted_means(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the mean of each row, adjusted for the columns that it lacks (two-way additive least squares).

    Without missing values it is the plain mean. Rows that share no column with the largest connected group of rows,
    directly or through others, cannot be compared with them and get NaN.

    Returns:
        (rows,) the means, and whether each row belongs to that group.
    """
    known = ~np.isnan(values)
    if known.all():
        return values.mean(axis=1), np.ones(len(values), dtype=bool)
    linked = (known.astype(int) @ known.T.astype(int)) > 0
    group = _largest_group(linked)
    means = np.full(len(values), np.nan)
    columns = known[group].any(axis=0)
    inner, present = values[group][:, columns], known[group][:, columns]
    if present.all():
        means[group] = inner.mean(axis=1)
        return means, group
    row, column = np.nonzero(present)
    n_rows, n_columns = inner.shape
    design = np.hstack([np.eye(n_rows)[row], np.eye(n_columns)[column][:, 1:]])
    coefficients = np.linalg.lstsq(design, inner[present], rcond=None)[0]
    means[group] = coefficients[:n_rows] + coefficients[n_rows:].sum() / n_columns
    return means, group


def _largest_group(linked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the members of the largest connected group (the first of several) as a mask."""
    best, left = np.zeros(len(linked), dtype=bool), np.ones(len(linked), dtype=bool)
    while left.any():
        group = np.zeros(len(linked), dtype=bool)
        group[np.argmax(left)] = True
        while (grown := linked[group].any(axis=0) | group).sum() > group.sum():
            group = grown
        best, left = (group if group.sum() > best.sum() else best), left & ~group
    return best


def merged_labels(
    frame: pd.DataFrame, columns: Sequence[str], format_level: Callable[[object], str]
) -> Mapping[str, str]:
    """Return the new label of each block that an adapter links with another."""
    if "adapter" not in frame:
        return {}
    owned = frame[frame["adapter"].notna() & (frame["adapter"] != "")]
    links = owned.groupby(["method", "adapter"])["block"].agg(lambda labels: sorted(set(labels)))
    parent: dict[str, str] = {}

    def root(label: str) -> str:
        while parent.get(label, label) != label:
            label = parent[label]
        return label

    for blocks in links:
        for other in blocks[1:]:
            first, second = sorted((root(blocks[0]), root(other)))
            parent[second] = first
    if not parent:
        return {}
    groups = frame["block"].map(root)
    varying = [c for c in columns if c in frame and frame[c].nunique(dropna=False) > 1]
    names: dict[str, str] = {}
    for _, rows in frame.groupby(groups):
        members = sorted(set(rows["block"]))
        if len(members) > 1:
            texts = ("+".join(sorted(set(rows[c].map(format_level)))) for c in varying)
            names |= dict.fromkeys(members, " ".join(texts))
    return names
