"""DoRA's weight norms in closed form, without materialising the adapted weights.

DoRA (arXiv 2402.09353) divides by the norms of the rows of `W + s B A`. PEFT computes that matrix, (out, in), in every
forward pass to take its norms. The squared norm of row i expands into

    |W_i|^2 + 2 s (W A^T)_i . B_i + s^2 (B A A^T)_i . B_i

where the first term is constant, because `W` is frozen, and the others are sums over the rank, so no matrix of the size
of `W` is needed. The result is the same up to rounding; the norm carries no gradient in either form (section 4.3).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels.onednn import is_linear


def use_closed_form_norms(model: Any) -> None:
    """Make a model's DoRA layers compute their norms in closed form, in place; valid while base weights are frozen."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.dora import DoraLinearLayer

    for _, module in adapter_modules(model):
        if type(module) is Linear and is_linear(module.get_base_layer()):
            for dora in module.lora_magnitude_vector.values():
                if type(dora) is DoraLinearLayer:
                    dora.forward = partial(_forward, dora, squared_row_norms(module.get_base_layer().weight))


@torch.no_grad()
def weight_norm(squares: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the norms of the rows of `weight + scale * b @ a`, (out,).

    Args:
        squares: squared norms of the rows of `weight`, (out,).
        weight: (out, in).
        a: (rank, in).
        b: (out, rank).
        scale: scaling of the update.
    """
    with torch.autocast(weight.device.type, enabled=False):
        a, b = a.to(squares.dtype), b.to(squares.dtype)
        weight_a = (weight @ a.to(weight.dtype).t()).to(squares.dtype)
        terms = (2 * scale * weight_a + scale**2 * (b @ (a @ a.t()))) * b
        norm: Tensor = (squares + terms.sum(dim=1)).clamp_min_(0).sqrt_()
    return norm


@torch.no_grad()
def squared_row_norms(weight: Tensor) -> Tensor:
    """Return the squared norms of the rows of a matrix, (out,), in fp32 at least."""
    full = weight if weight.dtype == torch.float64 else weight.float()
    norms: Tensor = torch.linalg.vector_norm(full, dim=1)
    return norms.square_()


def _forward(
    dora: Any,
    squares: Tensor,
    x: Tensor,
    *,
    lora_A: nn.Module,
    lora_B: nn.Module,
    scaling: float,
    base_layer: nn.Linear,
    base_result: Tensor | None = None,
    adapter_name: str = "default",
) -> Tensor:
    """Return what PEFT's `DoraLinearLayer.forward` returns: the term to be added to the output of the base layer."""
    weight = base_layer.weight
    norm = weight_norm(squares, weight, lora_A.weight, lora_B.weight, scaling)  # type: ignore[arg-type]
    factor = (dora.weight / norm).view(1, -1)
    if base_result is None:
        base_result = nn.functional.linear(x, weight.to(x.dtype))
    elif base_layer.bias is not None:
        base_result = base_result - base_layer.bias
    result: Tensor = (factor - 1) * base_result + factor * lora_B(lora_A(x)) * scaling
    return result
