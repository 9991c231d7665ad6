"""DoRA's norms of the adapted weights in closed form; PEFT makes each weight anew, in every pass, to take its norm.

Of `W + s B A` a row's squared norm is that of `W`, which stays, and two sums over the rank: `2 s (W A') . B` and
`s^2 (B (A A')) . B`. So no matrix of the size of `W` is made (arXiv 2402.09353, section 4.3: the norm has no gradient).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels.onednn import is_linear


def use_closed_form_norms(model: Any) -> None:
    """Have a model's DoRA layers take their norms in closed form, for as long as their base weights stay."""
    from peft.tuners.lora import Linear
    from peft.tuners.lora.dora import DoraLinearLayer

    for _, module in adapter_modules(model):
        if type(module) is Linear and is_linear(module.get_base_layer()):
            for dora in module.lora_magnitude_vector.values():
                if type(dora) is DoraLinearLayer:
                    dora.forward = partial(_forward, dora, _squares(module.get_base_layer().weight))


@torch.no_grad()
def weight_norm(squares: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return (out,), the norms of the rows of `weight + scale * b @ a`.

    Args:
        squares: (out,), the squared norms of the rows of `weight`.
        weight: (out, in); a: (rank, in); b: (out, rank).
    """
    with torch.autocast(weight.device.type, enabled=False):
        a, b = a.to(squares.dtype), b.to(squares.dtype)
        mixed = (weight @ a.to(weight.dtype).t()).to(squares.dtype)
        added = (2 * scale * mixed + scale**2 * (b @ (a @ a.t()))) * b
        norm: Tensor = (squares + added.sum(dim=1)).clamp_min_(0).sqrt_()
    return norm


@torch.no_grad()
def _squares(weight: Tensor) -> Tensor:
    wide = weight if weight.dtype == torch.float64 else weight.float()
    norms: Tensor = torch.linalg.vector_norm(wide, dim=1)
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
    """Return what PEFT's `DoraLinearLayer.forward` returns: what is to be added to the base layer's result."""
    weight = base_layer.weight
    norm = weight_norm(squares, weight, lora_A.weight, lora_B.weight, scaling)  # type: ignore[arg-type]
    factor = (dora.weight / norm).view(1, -1)
    if base_result is None:
        base_result = nn.functional.linear(x, weight.to(x.dtype))
    elif base_layer.bias is not None:
        base_result = base_result - base_layer.bias
    result: Tensor = (factor - 1) * base_result + factor * lora_B(lora_A(x)) * scaling
    return result
