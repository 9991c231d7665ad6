"""A LoRA layer and its base layer as one autograd function, to avoid intermediate matrices and memory traffic.

The layer computes `W x + bias + s B A x` (arXiv 2106.09685, equation 3). PEFT computes the base output and the update
as two (tokens, out) matrices and adds them, and in the backward pass likewise the two gradients of the input. Here the
second product is accumulated into the result of the first (`addmm_`) in both directions. The same products are
computed, so results and gradients equal PEFT's up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels import onednn
from whichlora.models.kernels.bf16 import has_dropout
from whichlora.models.kernels.onednn import is_linear, matmul_transposed, pad_rows
from whichlora.models.kernels.patching import patched_forward


def fusable_layers(model: Any) -> list[Any]:
    """Return the adapter layers that add `scale * B A x` to the output of a frozen linear layer, and nothing else."""
    from peft.tuners.lora import Linear

    return [
        layer
        for _, layer in adapter_modules(model)
        if type(layer) is Linear
        and is_linear(layer.get_base_layer())
        and not any(p.requires_grad for p in layer.get_base_layer().parameters())
        and not layer.lora_variant
        and not any(getattr(b, "bias", None) is not None for b in layer.lora_B.values())
        and not has_dropout(layer)
    ]


def fused(layers: Sequence[Any]) -> AbstractContextManager[None]:
    """Compute `fusable_layers` that have one active, unmerged adapter by the fused function within this context."""
    return patched_forward((layer, partial(_forward, layer)) for layer in layers)


def _forward(layer: Any, x: Tensor) -> Tensor:
    (name,) = layer.active_adapters
    base, device = layer.get_base_layer(), x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
    factors = layer.lora_A[name].weight, layer.lora_B[name].weight
    rows = x.flatten(0, -2)
    with torch.autocast(device, enabled=False):
        out: Tensor = _FusedLora.apply(rows, base.weight, base.bias, *factors, layer.scaling[name], dtype)  # type: ignore[no-untyped-call]
    # Outside the function, because autograd forbids in-place changes (OLMo's clipping) of a view that it returned.
    return out.view(*x.shape[:-1], base.out_features)


class _FusedLora(torch.autograd.Function):
    """`W x + bias + scale * B A x` for x of (tokens, in), computed in one dtype, with gradients for x, A and B."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype
    ) -> Tensor:
        rows, weight, down, up = (matrix.to(dtype) for matrix in (x, weight, a, b))
        hidden = matmul_transposed(rows, down)
        out = matmul_transposed(rows, weight, None if bias is None else bias.to(dtype)).addmm_(
            hidden, up.t(), alpha=scale
        )
        ctx.save_for_backward(rows, weight, down, up, hidden)
        ctx.scale, ctx.dtypes = scale, (x.dtype, a.dtype, b.dtype)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight, down, up, hidden = ctx.saved_tensors
        x_dtype, a_dtype, b_dtype = ctx.dtypes
        # The products are (rank, tokens) and (rank, out), because in fp32 MKL takes up to four times as long where the
        # last dimension is a rank below 16. oneDNN does not for the first one, which it computes as (tokens, rank):
        # then it need not copy parts of the gradient to split the long sums.
        by_onednn = onednn.PREFERRED and gradient.dtype == torch.float32
        d_hidden = (matmul_transposed(gradient, up.t()).t() if by_onednn else up.t() @ gradient.t()).mul_(ctx.scale)
        x = (
            matmul_transposed(gradient, weight.t()).addmm_(d_hidden.t(), down).to(x_dtype)
            if ctx.needs_input_grad[0]
            else None
        )
        d_hidden, rows, hidden, gradient = (
            pad_rows(d_hidden.t()).t(),
            pad_rows(rows),
            pad_rows(hidden),
            pad_rows(gradient),
        )
        a, b = matmul_transposed(d_hidden, rows.t()), matmul_transposed(hidden.t(), gradient.t()).mul_(ctx.scale).t()
        return x, None, None, a.to(a_dtype), b.to(b_dtype), None, None
