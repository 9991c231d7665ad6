"""Rules that choose the linear layers whose weights are trained in full, within a budget of parameters.

Each rule gives every candidate a score; the layers are taken in the order of their scores, each one that still fits
into the budget. All rules thus use nearly the whole budget, and differ in the layers alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from whichlora.announcements import announce
from whichlora.errors import NonFiniteError, OptionError, ProofError
from whichlora.variants.base import AdapterSettings, BackwardPasses, FullSelection, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

RULES = ("gradient", "spectral", "random")
GRADIENT_BATCHES = 4
"""Number of batches over which the gradient is averaged (docs/hybrid-lora.md says how much that matters)."""
_ENTRIES_AT_ONCE = 1 << 29
"""Number of weights whose gradients are held at a time (2 GiB in fp32); more take another pass over the batches."""
_SMALLEST = 1e-7
"""Smaller singular values, relative to the largest, are rounding errors: they are roots of 64-bit eigenvalues."""

Scores = dict[str, dict[str, float]]
"""Measures by candidate; `score` decides."""


def sizes(shapes: Shapes) -> dict[str, int]:
    """Return the number of weights of each layer."""
    return {name: n_in * n_out for name, (n_in, n_out) in shapes.items()}


def budget(shapes: Shapes, share: float) -> Fraction:
    """Return the number of weights that may be trained in full, a share of those of all layers."""
    return Fraction(str(share)) * sum(sizes(shapes).values())


def within_budget(order: Sequence[str], shapes: Shapes, share: float) -> tuple[str, ...]:
    """Return the layers that fit into the budget if each that still fits is taken, in the order of `shapes`."""
    left, size, taken = budget(shapes, share), sizes(shapes), set()
    for name in order:
        if size[name] <= left:
            left -= size[name]
            taken.add(name)
    return tuple(name for name in shapes if name in taken)


def named_layers(selection: str, shapes: Shapes) -> tuple[str, ...]:
    """Return the layers that a list of names, joined by commas, selects: full names, or last parts such as `v_proj`.

    Raises:
        OptionError: A name is neither a rule nor that of an adapted layer.
    """
    given = [part.strip() for part in selection.split(",")]
    short = list(dict.fromkeys(name.rpartition(".")[2] for name in shapes))
    unknown = [name for name in given if name not in shapes and name not in short]
    if unknown:
        allowed = (
            f"{unknown[0] or 'an empty name'} is not an adapted layer; allowed are {', '.join(RULES)}, or names of "
            f"layers, such as {next(iter(shapes))}, or {', '.join(short)} for those of all blocks"
        )
        raise OptionError("options", f"selection={selection}", allowed)
    return tuple(name for name in shapes if name in given or name.rpartition(".")[2] in given)


def check_selection(shapes: Shapes, options: Mapping[str, Any]) -> None:
    """Check the settings `selection` and `full_share` against the adapted layers.

    Raises:
        OptionError: A named layer does not exist, the named ones exceed the budget, or no layer fits into it.
    """
    selection, share = options["selection"], options["full_share"]
    size = sizes(shapes)
    if selection not in RULES:
        needed = sum(size[name] for name in named_layers(selection, shapes))
        if needed > budget(shapes, share):
            allowed = f"have {_percent(needed, size)} of the parameters of all adapted layers, more than full_share"
            raise OptionError("options", f"selection={selection}", f"the layers {allowed}={share:g} allows")
    elif 0 < budget(shapes, share) < min(size.values()):
        least = _percent(min(size.values()), size)
        allowed = f"the smallest of the {len(size)} adapted layers has {least} of their parameters, so that none fits"
        raise OptionError("options", f"full_share={share:g}", f"{allowed}; allowed are 0 and larger shares")


def _percent(part: int, size: Mapping[str, int]) -> str:
    return f"{100 * part / sum(size.values()):.3g} %"


def select(model: nn.Module, shapes: Shapes, settings: AdapterSettings, passes: BackwardPasses) -> FullSelection:
    """Choose layers by the rule, or the names, in the setting `selection`, within the budget `full_share`.

    A rule uses the budget up, so that a share of 1 is all layers; of names exactly those layers are chosen.

    Raises:
        ProofError: A chosen weight is shared with another layer, or no gradient reached the candidates.
        NonFiniteError: A gradient or a weight is not finite.
    """
    selection, share = settings.options["selection"], settings.options["full_share"]
    if not share:
        return FullSelection()
    if selection not in RULES:
        chosen = FullSelection(names=named_layers(selection, shapes))
    elif share == 1:
        chosen = FullSelection(names=tuple(shapes))
    else:
        scores = {
            "gradient": lambda: gradient_scores(model, shapes, settings.rank, passes[:GRADIENT_BATCHES]),
            "spectral": lambda: spectral_scores(model, shapes, settings.rank),
            "random": lambda: random_scores(shapes, settings.seed),
        }[selection]()
        order = sorted(shapes, key=lambda name: (-scores[name]["score"], name))
        chosen = FullSelection(names=within_budget(order, shapes, share), scores=scores)
    _check_unshared(model, chosen.names)
    return chosen


def random_scores(shapes: Shapes, seed: int) -> Scores:
    """Return a random number for each layer, which depends on nothing but the seed and the layer's position."""
    draw = random.Random(seed)
    return {name: {"score": draw.random()} for name in shapes}


def spectral_scores(model: nn.Module, shapes: Shapes, rank: int) -> Scores:
    """Return scores from the singular values of the weights, after "spectral Hybrid LoRA" of modelscope/twinkle.

    The score is .3 er / n + .3 (1 - c) + .2 ln(1 + k) / 10 with the effective rank er (Roy and Vetterli 2007), the
    share c of the energy in the first `rank` directions, the condition number k, and n singular values. Twinkle's
    fourth term, .2 divided by the mean step between the logarithms of adjacent singular values, is left out: that mean
    is ln(k) / (n - 1), since the steps add up to ln(k), so the term is many times the others and decides alone, for
    wide and well-conditioned weights whatever the rank is.
    """
    announce("Computing the singular values of the weights, to choose those that are trained in full.")
    scores: Scores = {}
    for name in shapes:
        squares = squared_singular_values(_weight(model, name), name)
        values = squares.sqrt()
        effective, covered = effective_rank(values), coverage(squares, rank)
        smallest = values[-1].clamp(min=_SMALLEST * float(values[0]))
        condition = float(values[0] / smallest) if values[0] else 1.0
        terms = (0.3 * effective / len(values), 0.3 * (1 - covered), 0.02 * math.log1p(condition))
        scores[name] = {
            "score": sum(terms),
            "effective_rank": effective,
            "coverage": covered,
            "condition_number": condition,
        }
    return scores


def gradient_scores(model: nn.Module, shapes: Shapes, rank: int, passes: BackwardPasses) -> Scores:
    """Return the energy of each weight's gradient that an update of this rank cannot follow, per parameter.

    With the singular values s of the gradient G of the mean loss, it is the sum of s_i^2 over i > rank, divided by the
    number of weights: |G|^2, times the share outside the best approximation of the rank (Eckart and Young 1936), per
    parameter.

    Raises:
        NonFiniteError: A gradient is not finite.
        ProofError: All gradients are zero.
    """
    announce("Computing gradients of the first training batches, to choose the weights that are trained in full.")
    scores: Scores = {}
    for name, gradient in _gradients(model, shapes, passes):
        squares = squared_singular_values(gradient, f"the gradient of {name}")
        scores[name] = {
            "score": float(squares[rank:].sum()) / gradient.numel(),
            "coverage": coverage(squares, rank),
            "energy": float(squares.sum()),
        }
    if not any(measures["energy"] for measures in scores.values()):
        raise ProofError("selection=gradient: the first training batches give no gradient")
    return {name: scores[name] for name in shapes}


def _gradients(model: nn.Module, shapes: Shapes, passes: BackwardPasses) -> Iterator[tuple[str, Tensor]]:
    """Yield the mean gradient of the batches, (out, in) in fp32, for the weight of each layer.

    Dropout is off. The model is left as it was, except that its parameters require no gradient.
    """
    import torch

    was_training = model.training
    model.eval()
    model.requires_grad_(False)
    try:
        for part in _parts(sizes(shapes)):
            weights = {name: _weight(model, name) for name in part}
            total = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}
            for weight in weights.values():
                weight.requires_grad_(True)
            for backward in passes:
                with torch.enable_grad():
                    backward(model)
                for name, weight in weights.items():
                    if weight.grad is not None:  # None for an expert to which no token was sent
                        total[name] += weight.grad / len(passes)
                        weight.grad = None
            for weight in weights.values():
                weight.requires_grad_(False)
            yield from total.items()
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        model.requires_grad_(False)
        model.train(was_training)


def _parts(size: Mapping[str, int]) -> list[list[str]]:
    """Divide the layers into parts whose gradients are computed together."""
    parts: list[list[str]] = [[]]
    held = 0
    for name, count in size.items():
        if parts[-1] and held + count > _ENTRIES_AT_ONCE:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += count
    return parts


def squared_singular_values(matrix: Tensor, name: str) -> Tensor:
    """Return the squares of a matrix's singular values, largest first, in 64 bits.

    They are the eigenvalues of the smaller Gram matrix, which take a fraction of the time of a singular value
    decomposition.

    Raises:
        NonFiniteError: The matrix is not finite.
    """
    import torch

    with torch.no_grad():
        wide = matrix.detach().double()
        if not bool(wide.isfinite().all()):
            raise NonFiniteError(f"{name} is not finite")
        rows = wide if wide.shape[0] <= wide.shape[1] else wide.T
        squares: Tensor = torch.linalg.eigvalsh(rows @ rows.T)
        return squares.clamp(min=0).flip(0).cpu()


def effective_rank(values: Tensor) -> float:
    """Return the exponential of the entropy of singular values, as shares of their sum; 0 for a matrix of zeros."""
    import torch

    total = values.sum()
    return float(torch.special.entr(values / total).sum().exp()) if total else 0.0


def coverage(squares: Tensor, rank: int) -> float:
    """Return the share of the sum of squared singular values, largest first, in the first `rank`; 1 for zeros."""
    total = float(squares.sum())
    return float(squares[:rank].sum()) / total if total else 1.0


def _weight(model: nn.Module, name: str) -> Tensor:
    """Return the weight of a layer, (out, in)."""
    return model.get_submodule(name).weight  # type: ignore[return-value]


def _check_unshared(model: nn.Module, names: Sequence[str]) -> None:
    """Check that no other layer has one of these layers' weights, which would not follow its training.

    Raises:
        ProofError: One has.
    """
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    shared = [name for name in names if uses[id(_weight(model, name))] > 1]
    if shared:
        raise ProofError(f"the weight of {shared[0]} is shared with another layer, so it cannot be trained in full")
