"""LoRA's layer as one operation of autograd: the same sums with fewer matrices made on the way.

PEFT adds the adapter's product to the base layer's, and in the gradient that of the adapter's input to that of the
base's, each a matrix of its own. Here one is added into the other as it is computed (arXiv 2106.09685, equation 3).
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
    """Return the adapter layers that add `scale * B A x` to what a frozen linear layer gives, and nothing else."""
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
    """Have plain layers with one active adapter, which is not merged, compute in one operation until this is left."""
    return patched_forward((layer, partial(_forward, layer)) for layer in layers)


def _forward(layer: Any, x: Tensor) -> Tensor:
    (name,) = layer.active_adapters
    base, device = layer.get_base_layer(), x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
    factors = layer.lora_A[name].weight, layer.lora_B[name].weight
    rows = x.flatten(0, -2)
    with torch.autocast(device, enabled=False):
        wide: Tensor = _FusedLora.apply(rows, base.weight, base.bias, *factors, layer.scaling[name], dtype)  # type: ignore[no-untyped-call]
    return wide.view(*x.shape[:-1], base.out_features)  # out here, or none may write into it, as OLMo does


class _FusedLora(torch.autograd.Function):
    """`W x + bias + scale * B A x` of (tokens, in) in one precision, with gradients for x, A and B."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, dtype: torch.dtype
    ) -> Tensor:
        rows, weight, down, up = (matrix.to(dtype) for matrix in (x, weight, a, b))
        low = matmul_transposed(rows, down)
        wide = matmul_transposed(rows, weight, None if bias is None else bias.to(dtype)).addmm_(
            low, up.t(), alpha=scale
        )
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scale, ctx.dtypes = scale, (x.dtype, a.dtype, b.dtype)
        return wide

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight, down, up, low = ctx.saved_tensors
        of_x, of_a, of_b = ctx.dtypes
        # As (rank, tokens) and (rank, out): with the rank last, in 32 bits and below 16, MKL takes up to four times as
        # long. oneDNN does not for the first, whose long sums it then need not copy parts of the gradient for.
        quick = onednn.PREFERRED and gradient.dtype == torch.float32
        inner = (matmul_transposed(gradient, up.t()).t() if quick else up.t() @ gradient.t()).mul_(ctx.scale)
        x = (
            matmul_transposed(gradient, weight.t()).addmm_(inner.t(), down).to(of_x)
            if ctx.needs_input_grad[0]
            else None
        )
        inner, rows, low, gradient = pad_rows(inner.t()).t(), pad_rows(rows), pad_rows(low), pad_rows(gradient)
        a, b = matmul_transposed(inner, rows.t()), matmul_transposed(low.t(), gradient.t()).mul_(ctx.scale).t()
        return x, None, None, a.to(of_a), b.to(of_b), None, None
