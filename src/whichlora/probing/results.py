"""What every probe hands over: a table by layer, figures, and headline values."""

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
    """What a probe measured.

    Attributes:
        layers: the columns `COLUMNS`, a row a layer and measure. Layers count from 0, each standing for the state after
            that block; -1 is what enters the first block. `low` and `high` bound the interval, NaN where there is none,
            and `n` is the number of items behind the value.
        metrics: headline values by name.
        series: a headline measure by layer, by name, as (layer, value).
        figures: by file name without its ending.
        files: further artifacts.
    """

    layers: pd.DataFrame
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A probe that is ready to be done: all that can be checked without the weights has been.

    Attributes:
        identity: what decides the result beside model, precision and seed, by name; logged as params.
        measure: does it. The folder it is given keeps what was measured, for a call after a kill to go on from.
    """

    identity: Mapping[str, Any]
    measure: Callable[[Path], ProbeResult]


def by_layer(measures: Sequence[str], layers: Sequence[int], found: Intervals) -> pd.DataFrame:
    """Return rows of `Measured.layers` from intervals whose columns are all layers of the first measure, and so on."""
    names, numbers = np.meshgrid(measures, layers, indexing="ij")
    values = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    return pd.DataFrame({"layer": numbers.ravel(), "measure": names.ravel(), **values})[list(COLUMNS)]


def curve(layers: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the rows of one measure, by layer."""
    return layers[layers["measure"] == measure].sort_values("layer")


def points(layers: pd.DataFrame, measure: str) -> list[tuple[int, float]]:
    """Return (layer, value) of one measure after the blocks, without what has no value."""
    rows = curve(layers, measure).query("layer >= 0").dropna(subset="value")
    return [(int(layer), float(value)) for layer, value in zip(rows["layer"], rows["value"], strict=True)]
