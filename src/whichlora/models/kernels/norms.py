"""Root-mean-square norms with a frozen weight, whose backward pass is one function instead of some twelve operations.

The norm of a token's states is `y = w x / sqrt(mean(x^2) + eps)` (arXiv 1910.07467). The forward pass is the module's
own, bit for bit. With `g` the gradient of `y` and `r = 1 / sqrt(mean(x^2) + eps)` the gradient of `x` is

    r (w g - r^2 x mean(w g x))

computed in fp32 and rounded once. Autograd would keep and pass fp32 copies of all intermediate states.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_TOLERANCE = 1e-5


def norms_with_short_backward(model: nn.Module) -> list[tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """Return the model's RMS norms with a frozen weight, each with its replacement of `forward`.

    Architectures define classes of their own. Some multiply by `weight`, Gemma's by `1 + weight`, so the factor is read
    from the module's output, and a module is left out whose output on other states is not what the formula gives.
    """
    found: list[tuple[nn.Module, Callable[[Tensor], Tensor]]] = []
    for module in model.modules():
        if "RMSNorm" in type(module).__name__ and not any(p.requires_grad for p in module.parameters()):
            weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", None)
            eps = getattr(module, "eps", None) if eps is None else eps
            if isinstance(weight, Tensor) and weight.dim() == 1 and isinstance(eps, float):
                factor = _factor(module, weight, eps)
                if factor is not None:
                    found.append((module, partial(_forward, module, factor, eps)))
    return found


@torch.no_grad()
def _factor(module: nn.Module, weight: Tensor, eps: float) -> Tensor | None:
    """Return the factor of each channel in fp32, or None if the module does not compute the formula above."""
    width = len(weight)
    factor: Tensor = module(torch.ones(1, width, device=weight.device))[0].float() * (1 + eps) ** 0.5
    steps = torch.arange(width, device=weight.device)
    states = torch.stack([(steps * 0.7).cos() + 0.3, (steps * 1.3).sin() * eps**0.5])
    expected = factor * states * (states.square().mean(-1, keepdim=True) + eps).rsqrt()
    return factor if torch.allclose(module(states), expected, rtol=_TOLERANCE, atol=_TOLERANCE) else None


def _forward(module: nn.Module, factor: Tensor, eps: float, x: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and x.requires_grad):
        result: Tensor = type(module).forward(module, x)
        return result
    result = _RmsNorm.apply(x, module, factor, eps)  # type: ignore[no-untyped-call]
    return result


class _RmsNorm(torch.autograd.Function):
    """The norm of a module, with a gradient for its input alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.Module, factor: Tensor, eps: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, factor)
        ctx.eps = eps
        result: Tensor = type(module).forward(module, x)
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, factor = ctx.saved_tensors
        states = x.float()
        scale = (
            torch.linalg.vector_norm(states, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(ctx.eps).rsqrt_()
        )
        weighted = gradient.float() * factor
        slope = torch.linalg.vecdot(weighted, states).unsqueeze_(-1).div_(-x.shape[-1]).mul_(scale.square())
        return weighted.addcmul_(states, slope).mul_(scale).to(x.dtype), None, None, None
