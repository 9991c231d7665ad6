"""The weight probe: size, rank and leading directions of the update of each adapted layer.

For every method the update is the layer's weight with the adapter merged minus the base weight. Both are in 64 bits, so
that the difference of nearly equal numbers is accurate enough to count ranks.
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

from whichlora.errors import NonFiniteError, OptionError
from whichlora.models.adapter_layers import merged_weight, trained_modules, unload
from whichlora.probing import probed_model
from whichlora.probing.choices import WeightChoices
from whichlora.probing.figures import weight_figure
from whichlora.probing.request import Request
from whichlora.probing.results import COLUMNS, PreparedProbe, ProbeResult, points
from whichlora.training import adapter, base_cache

if TYPE_CHECKING:
    from whichlora.config.plan import Plan
    from whichlora.probing.probed_model import ProbedModel

DIRECTIONS = 8
"""Number of leading singular directions in which two updates are compared; fewer if one has a smaller rank."""
SIZES = ("relative_norm", "spectral_norm", "stable_rank", "rank")
"""Frobenius norm of the update over that of the weight; largest singular value; squared Frobenius norm over squared
spectral norm (Rudelson and Vershynin 2007); number of singular values above the tolerance of `spectrum`."""
OVERLAPS = ("overlap_out", "overlap_in")
"""Grassmann similarity, 0 to 1, of the leading left or right singular directions (Hu et al. 2021, 7.2)."""
CHANCES = ("chance_out", "chance_in")
"""Expected overlap of random subspaces of the same dimensions."""


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values of an update, largest first, its rank, and up to `DIRECTIONS` singular vectors as columns."""

    values: Tensor
    rank: int
    left: Tensor
    right: Tensor


def prepare(request: Request, probed: ProbedModel) -> PreparedProbe:
    """Return the weight probe of a run, compared with another run if `against` names one.

    Raises:
        OptionError: a run did not train anything, or the two runs have different base models.
    """
    assert isinstance(request.choices, WeightChoices)
    _check_trained(probed, "run_id")
    comparison = None
    if request.choices.against is not None:
        comparison = probed_model.find_comparison(request, probed, request.choices.against)
        _check_trained(comparison, "against")
    identity = {"against": comparison.plan.spec.fingerprint if comparison else "", "directions": DIRECTIONS}
    return PreparedProbe(identity=identity, measure=lambda work: _measure(probed, comparison, work))


def spectrum(update: Tensor) -> Spectrum:
    """Return the spectrum of an update, (out, in) in 64 bits.

    It is computed from the eigenvalues of the smaller Gram matrix, which cost a fraction of a singular value
    decomposition and are accurate to 8 digits. The rank counts singular values above the largest one times max(out, in)
    times the machine epsilon of 32-bit floats, in which adapters are stored.
    """
    wide = update.shape[0] <= update.shape[1]
    rows = update if wide else update.T
    squares, vectors = torch.linalg.eigh(rows @ rows.T)
    values = squares.clamp(min=0).sqrt().flip(0)
    tolerance = float(values[0]) * max(update.shape) * torch.finfo(torch.float32).eps
    rank = int((values > tolerance).sum())
    k = min(rank, DIRECTIONS)
    short = vectors[:, len(vectors) - k :].flip(1)  # flip copies, so the other columns can be freed
    long = rows.T @ short / values[:k]
    return Spectrum(values=values, rank=rank, left=short if wide else long, right=long if wide else short)


def sizes(weight: Tensor, update: Tensor, decomposed: Spectrum) -> dict[str, float]:
    """Return `SIZES` of an update; the stable rank of a zero update is NaN."""
    norm, largest = float(update.norm()), float(decomposed.values[0])
    return {
        "relative_norm": norm / float(weight.norm()),
        "spectral_norm": largest,
        "stable_rank": (norm / largest) ** 2 if largest else math.nan,
        "rank": float(decomposed.rank),
    }


def overlap(first: Tensor, second: Tensor) -> float:
    """Return the overlap of two subspaces: 1 if one contains the other, 0 if they are orthogonal.

    Each is represented by orthonormal columns, (width, directions). Returns NaN if one has no columns.
    """
    k = min(first.shape[1], second.shape[1])
    return float((first.T @ second).square().sum()) / k if k else math.nan


def chance_overlap(first: Tensor, second: Tensor) -> float:
    """Return the expected `overlap` of random subspaces of these dimensions: the larger dimension over the width."""
    return max(first.shape[1], second.shape[1]) / first.shape[0] if min(first.shape[1], second.shape[1]) else math.nan


def _check_trained(probed: ProbedModel, option: str) -> None:
    if not probed.plan.variant.trains:
        raise OptionError(option, probed.run_id or "base", "must be a run that trained something")
    if not probed.plan.variant.mergeable:
        allowed = f"must be a run of another variant: {probed.plan.variant.name} has no update that a weight can hold"
        raise OptionError(option, probed.run_id or "base", allowed)


def _measure(probed: ProbedModel, comparison: ProbedModel | None, work: Path) -> ProbeResult:
    measures: dict[tuple[int, str], dict[str, float]] = {}
    reference = {}
    if comparison is not None:
        reference = {site: spectrum(update) for site, _, update in _updates(comparison, work)}
    for site, weight, update in _updates(probed, work):
        decomposed = spectrum(update)
        measures[site] = sizes(weight, update, decomposed)
        if site in reference:
            for name, expected, side in zip(OVERLAPS, CHANCES, ("left", "right"), strict=True):
                bases = getattr(decomposed, side), getattr(reference[site], side)
                measures[site] |= {name: overlap(*bases), expected: chance_overlap(*bases)}
    cells = pd.DataFrame.from_dict(measures, orient="index")
    cells.index = pd.MultiIndex.from_tuples(measures, names=["layer", "module"])
    layers = _rows(cells)
    return ProbeResult(
        layers=layers,
        metrics={f"update/mean_{name}": float(column.mean()) for name, column in cells.items()},
        series={f"update/{name}": points(layers, name) for name in cells.columns},
        figures={"weights": weight_figure(_tables(cells), f"Update by {probed.name}")},
    )


def _updates(probed: ProbedModel, work: Path) -> Iterator[tuple[tuple[int, str], Tensor, Tensor]]:
    """Yield ((layer, module), weight, update), both (out, in), of each trained linear layer of the decoder blocks.

    The base is not quantised, even if the run trained on a quantised one.
    """
    plan = replace(probed.plan, spec=replace(probed.plan.spec, quantization="none"))
    folder = probed.adapter(work)
    base = base_cache.checkout(plan)
    pairs = (
        _full_weights(plan, folder, base) if plan.variant.trains_whole_model else _merged_weights(plan, folder, base)
    )
    for name, before, after in tqdm(pairs, desc=f"weights of {probed.name}", unit="layer", total=_count(plan)):
        update = after - before
        if not bool(update.isfinite().all()):
            raise NonFiniteError(f"the update of {name} is not finite")
        layer, _, module = name.removeprefix(f"{plan.shape.blocks}.").partition(".")
        yield (int(layer), module.rpartition(".")[2]), before, update


def _merged_weights(plan: Plan, folder: Path, base: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, base weight, weight with the adapter merged) of each layer that has one or is trained in full."""
    model = adapter.load_saved(plan, folder, base=base)
    for name, module in trained_modules(model):
        if name.startswith(f"{plan.shape.blocks}."):
            weights = merged_weight(module, torch.float64)
            assert weights is not None
            yield name, *weights
    base_cache.give_back(unload(model), plan)


def _full_weights(plan: Plan, folder: Path, base: Any) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, base weight, trained weight) of each linear layer of a fully fine-tuned model."""
    trained = adapter.load_saved(plan, folder, base=None)
    for name in plan.shape.linears:
        yield name, *(model.get_submodule(name).weight.detach().cpu().double() for model in (base, trained))
    base_cache.give_back(base, plan)


def _count(plan: Plan) -> int:
    return len(plan.shape.linears if plan.variant.trains_whole_model else plan.adapted)


def _rows(cells: pd.DataFrame) -> pd.DataFrame:
    """Return rows of `ProbeResult.layers`: each measure by module (`rank/q_proj`) and its mean by layer (`rank`)."""
    long = cells.reset_index().melt(id_vars=["layer", "module"], var_name="measure").dropna(subset="value")
    mean = long.groupby(["layer", "measure"], sort=False)["value"].agg(value="mean", n="size").reset_index()
    long["measure"], long["n"] = long["measure"] + "/" + long["module"], 1
    rows = pd.concat([long, mean], ignore_index=True)
    rows["low"] = rows["high"] = np.nan
    return rows[list(COLUMNS)]


def _tables(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return a table (layers, modules) for each measure, with the modules in the order of the model."""
    modules = list(cells.index.get_level_values("module").unique())
    wide = cells.reset_index()
    return {str(name): wide.pivot(index="layer", columns="module", values=name)[modules] for name in cells.columns}
