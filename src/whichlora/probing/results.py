"""Defines the result of a probe: a table by layer, figures and summary metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from whichlora.probing.bootstrap import Intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("layer", "measure", "value", "low", "high", "n")


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """The result of a probe.

    Attributes:
        layers: a row for each layer and measure, with the columns `COLUMNS`. Layer i is the state after block i,
            counted from 0; -1 is the input of the first block. `low` and `high` bound the interval (NaN if there is
            none), and `n` is the number of items behind the value.
        metrics: summary values by name.
        series: metrics by layer: (layer, value) pairs by name.
        figures: figures by file name without extension.
        files: further artifacts.
    """

    layers: pd.DataFrame
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class PreparedProbe:
    """A probe ready to run: everything that can be checked without loading weights has been checked.

    Attributes:
        identity: what determines the result besides model, precision and seed, by name; logged as params.
        measure: runs the probe. It stores partial results in the folder passed to it, from which a later call resumes.
    """

    identity: Mapping[str, Any]
    measure: Callable[[Path], ProbeResult]


def layer_rows(measures: Sequence[str], layers: Sequence[int], intervals: Intervals) -> pd.DataFrame:
    """Return rows of `ProbeResult.layers` from intervals whose columns are (measures, layers), flattened."""
    names, numbers = np.meshgrid(measures, layers, indexing="ij")
    values = {"value": intervals.mean, "low": intervals.low, "high": intervals.high, "n": intervals.n}
    return pd.DataFrame({"layer": numbers.ravel(), "measure": names.ravel(), **values})[list(COLUMNS)]


def curve(layers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the rows of one measure, sorted by layer."""
    return layers[layers["measure"] == measure].sort_values("layer")


def at_layer(layers: pd.DataFrame, measure: str, layer: int, column: str = "value") -> float:
    """Return the value of one measure at one layer, or one of its other columns."""
    rows = curve(layers, measure)
    return float(rows.loc[rows["layer"] == layer, column].item())


def points(layers: pd.DataFrame, measure: str) -> list[tuple[int, float]]:
    """Return (layer, value) of one measure after each block; layers without a value are omitted."""
    rows = curve(layers, measure).query("layer >= 0").dropna(subset="value")
    return [(int(layer), float(value)) for layer, value in zip(rows["layer"], rows["value"], strict=True)]
