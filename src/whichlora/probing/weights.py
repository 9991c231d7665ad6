"""What training did to the weights: the update of each adapted layer, its size and its rank, and where it points.

The update is the layer's weight with the adapter folded in, less that of the plain base, whatever the method. Both are
in 64 bits, so that the difference of nearly equal numbers is exact enough to count ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from whichlora.errors import OptionError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.probing import probed_model
from whichlora.probing.figures import weight_figure
from whichlora.probing.options import Request, WeightChoices
from whichlora.probing.results import COLUMNS, Job, ProbeResult, points
from whichlora.training import adapter, base_cache

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.probing.probed_model import ProbedModel

DIRECTIONS = 8
"""Leading singular directions of two updates that are compared; fewer where one has a smaller rank."""
SIZES = ("relative_norm", "spectral_norm", "stable_rank", "rank")
"""Frobenius norm of the update over that of the weight; largest singular value; squared Frobenius over squared spectral
norm (Rudelson and Vershynin 2007); singular values above `spectrum`'s tolerance."""
OVERLAPS = ("overlap_out", "overlap_in")
"""Grassmann similarity of the leading left or right singular directions (Hu et al. 2021, section 7.2): 0 to 1."""
CHANCES = ("chance_out", "chance_in")
"""What the overlap of random subspaces of these numbers of directions is on average."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values of an update, largest first, its rank, and up to `DIRECTIONS` singular vectors as columns."""

    values: Tensor
    rank: int
    left: Tensor
    right: Tensor


def prepare(request: Request, subject: ProbedModel) -> Job:
    """Return the weight probe of a run, beside another run if one is named.

    Raises:
        OptionError: a run trained no weights, or the other one has another base model.
    """
    assert isinstance(request.choices, WeightChoices)
    _check(subject, "run_id")
    other = None
    if request.choices.against is not None:
        other = probed_model.find_other(request, subject, request.choices.against)
        _check(other, "against")
    identity = {"against": other.plan.spec.fingerprint if other else "", "directions": DIRECTIONS}
    return Job(identity=identity, measure=lambda work: _measure(subject, other, work))


def spectrum(update: Tensor) -> Spectrum:
    """Return the spectrum of an update, (out, in) in 64 bits.

    It comes from the eigenvalues of the smaller Gram matrix, which cost a fraction of a singular value decomposition
    and leave 8 digits. The rank counts what is above the largest value times max(out, in) times the 32-bit precision,
    in which adapters are stored.
    """
    flat = update.shape[0] <= update.shape[1]
    rows = update if flat else update.T
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    values = squares.clamp(min=0).sqrt().flip(0)
    tolerance = float(values[0]) * max(update.shape) * torch.finfo(torch.float32).eps
    rank = int((values > tolerance).sum())
    k = min(rank, DIRECTIONS)
    one = vectors[:, len(vectors) - k :].flip(1)  # a copy, so that the other columns are let go of
    other = rows.T @ one / values[:k]
    return Spectrum(values=values, rank=rank, left=one if flat else other, right=other if flat else one)


def sizes(weight: Tensor, update: Tensor, found: Spectrum) -> dict[str, float]:
    """Return `SIZES` of an update; a layer that did not change has no stable rank."""
    norm, largest = float(update.norm()), float(found.values[0])
    return {
        "relative_norm": norm / float(weight.norm()),
        "spectral_norm": largest,
        "stable_rank": (norm / largest) ** 2 if largest else math.nan,
        "rank": float(found.rank),
    }


def overlap(one: Tensor, other: Tensor) -> float:
    """Return how far two subspaces coincide: 1 if the smaller is inside the larger, 0 if they are orthogonal.

    The columns of each, (width, directions), are orthonormal. NaN where there are none.
    """
    k = min(one.shape[1], other.shape[1])
    return float((one.T @ other).square().sum()) / k if k else math.nan


def chance(one: Tensor, other: Tensor) -> float:
    """Return the mean `overlap` of random subspaces of these sizes: the larger number of directions over the width."""
    return max(one.shape[1], other.shape[1]) / one.shape[0] if min(one.shape[1], other.shape[1]) else math.nan


def _check(subject: ProbedModel, option: str) -> None:
    if not subject.plan.variant.trains:
        raise OptionError(option, subject.run_id or "base", "must be a run that trained something")


def _measure(subject: ProbedModel, other: ProbedModel | None, work: Path) -> ProbeResult:
    found: dict[tuple[int, str], dict[str, float]] = {}
    known = {}
    if other is not None:
        known = {place: spectrum(update) for place, _, update in _updates(other, work)}
    for place, weight, update in _updates(subject, work):
        own = spectrum(update)
        found[place] = sizes(weight, update, own)
        if place in known:
            for name, expected, side in zip(OVERLAPS, CHANCES, ("left", "right"), strict=True):
                both = getattr(own, side), getattr(known[place], side)
                found[place] |= {name: overlap(*both), expected: chance(*both)}
    cells = pd.DataFrame.from_dict(found, orient="index")
    cells.index = pd.MultiIndex.from_tuples(found, names=["layer", "module"])
    layers = _rows(cells)
    return ProbeResult(
        layers=layers,
        metrics={f"update/mean_{name}": float(column.mean()) for name, column in cells.items()},
        series={f"update/{name}": points(layers, name) for name in cells.columns},
        figures={"weights": weight_figure(_tables(cells), f"Update by {subject.name}")},
    )


def _updates(subject: ProbedModel, work: Path) -> Iterator[tuple[tuple[int, str], Tensor, Tensor]]:
    """Yield ((layer, module), weight, update), both (out, in), of each trained linear layer of the decoder blocks.

    The base is in full precision even where the run trained on a quantised one.
    """
    plan = replace(subject.plan, spec=replace(subject.plan.spec, quantization="none"))
    folder = subject.adapter(work)
    base = base_cache.checkout(plan)
    pairs = _of_full(plan, folder, base) if plan.variant.trains_whole_model else _of_adapter(plan, folder, base)
    for name, before, after in tqdm(pairs, desc=f"weights of {subject.name}", unit="layer", total=_count(plan)):
        layer, _, module = name.removeprefix(f"{plan.shape.blocks}.").partition(".")
        yield (int(layer), module.rpartition(".")[2]), before, after - before


def _of_adapter(plan: Plan, folder: Path, base: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    model = adapter.load_saved(plan, folder, base=base)
    for name, module in adapter_modules(model):
        if name.startswith(f"{plan.shape.blocks}."):
            weights = merged_weight(module, torch.float64)
            assert weights is not None
            yield name, *weights
    base = model.unload()
    if not plan.variant.fully_trained:
        base_cache.give_back(base, plan)


def _of_full(plan: Plan, folder: Path, base: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    trained = adapter.load_saved(plan, folder, base=None)
    for name in plan.shape.linears:
        yield name, *(model.get_submodule(name).weight.detach().cpu().double() for model in (base, trained))
    base_cache.give_back(base, plan)


def _count(plan: Plan) -> int:
    return len(plan.shape.linears if plan.variant.trains_whole_model else plan.adapted)


def _rows(cells: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `Measured.layers`: each measure by module (`rank/q_proj`), and its mean over a layer (`rank`)."""
    long = cells.reset_index().melt(id_vars=["layer", "module"], var_name="measure").dropna(subset="value")
    mean = long.groupby(["layer", "measure"], sort=False)["value"].agg(value="mean", n="size").reset_index()
    long["measure"], long["n"] = long["measure"] + "/" + long["module"], 1
    both = pd.concat([long, mean], ignore_index=True)
    both["low"] = both["high"] = np.nan
    return both[list(COLUMNS)]


def _tables(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each measure as (layers, modules), the modules in the order of the model."""
    modules = list(cells.index.get_level_values("module").unique())
    wide = cells.reset_index()
    return {str(name): wide.pivot(index="layer", columns="module", values=name)[modules] for name in cells.columns}
