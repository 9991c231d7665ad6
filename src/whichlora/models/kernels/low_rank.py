"""A low-rank adapter layer and its base layer as one autograd function, without intermediate matrices.

The function computes, for each token x,

    (1 + gain) * (W x + scale * B (inner * A x)) + bias

where `*` is elementwise, `inner` has an entry for each rank, and `gain` has one for each output:

| method | inner | gain |
|---|---|---|
| LoRA (arXiv 2106.09685, equation 3) | | |
| AdaLoRA (arXiv 2303.10512, equation 3) | singular values | |
| DoRA (arXiv 2402.09353, equation 5) | | magnitude / norm - 1 |

PEFT computes the base output and the update as two (tokens, out) matrices and adds them, and in the backward pass
likewise the two gradients of the input; DoRA's outputs it scales in fp32. Here the second product is accumulated into
the result of the first (`addmm_`) in both directions. Results and gradients equal PEFT's up to rounding. A gain near 0
is precise in bf16, in which the factor 1 + gain would not be.

VeRA has the same form, but gains nothing: its products at rank 256 and above take the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels import onednn
from whichlora.models.kernels.bf16 import has_dropout
from whichlora.models.kernels.dora import squared_row_norms, weight_norm
from whichlora.models.kernels.onednn import is_linear, matmul_transposed, pad_rows
from whichlora.models.kernels.patching import patched_forward


@dataclass(frozen=True)
class _Update:
    """The update of a layer: what the function takes beside the base layer."""

    a: Tensor
    b: Tensor
    scale: float = 1.0
    inner: Tensor | None = None
    gain: Tensor | None = None


def fusable_layers(model: Any, *, only_plain_lora: bool = False) -> dict[Any, Callable[[Tensor], Tensor]]:
    """Return the adapter layers that the function can compute on a frozen linear layer, with their `forward`.

    Args:
        model: a PEFT model.
        only_plain_lora: whether to leave out all methods but LoRA.
    """
    layers: dict[Any, Callable[[Tensor], Tensor]] = {}
    for _, layer in adapter_modules(model):
        base = layer.get_base_layer()
        if is_linear(base) and not any(p.requires_grad for p in base.parameters()) and not has_dropout(layer):
            read = _reader(layer)
            if read is not None and (read is _lora or not only_plain_lora):
                layers[layer] = partial(_forward, layer, read)
    return layers


def fused(layers: Mapping[Any, Callable[[Tensor], Tensor]]) -> AbstractContextManager[None]:
    """Compute `fusable_layers` that have one active, unmerged adapter by the fused function within this context."""
    return patched_forward(layers.items())


def _reader(layer: Any) -> Callable[[Any, str], _Update] | None:
    """Return a function that reads the update of a layer from it, by the adapter's name; None for other methods."""
    from peft.tuners.adalora import SVDLinear
    from peft.tuners.lora import Linear
    from peft.tuners.lora.dora import DoraLinearLayer

    if type(layer) is SVDLinear:
        return _adalora
    if type(layer) is not Linear or any(getattr(b, "bias", None) is not None for b in layer.lora_B.values()):
        return None
    if not layer.lora_variant:
        return _lora
    magnitudes = list(layer.lora_magnitude_vector.values())
    if magnitudes and all(type(magnitude) is DoraLinearLayer for magnitude in magnitudes):
        return partial(_dora, squared_row_norms(layer.get_base_layer().weight))
    return None


def _lora(layer: Any, name: str) -> _Update:
    return _Update(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])


def _dora(squares: Tensor, layer: Any, name: str) -> _Update:
    a, b, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    norm = weight_norm(squares, layer.get_base_layer().weight, a, b, scale)
    return _Update(a, b, scale, gain=layer.lora_magnitude_vector[name].weight / norm - 1)


def _adalora(layer: Any, name: str) -> _Update:
    scale = layer.scaling[name] / (layer.ranknum[name] + 1e-5)  # a tensor, whose value GPUs would wait for
    return _Update(layer.lora_A[name], layer.lora_B[name], inner=layer.lora_E[name][:, 0] * scale)


def _forward(layer: Any, read: Callable[[Any, str], _Update], x: Tensor) -> Tensor:
    (name,) = layer.active_adapters
    base, device = layer.get_base_layer(), x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else base.weight.dtype
    with torch.autocast(device, enabled=False):
        update = read(layer, name)
        out: Tensor = _FusedLayer.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), base.weight, base.bias, update.a, update.b, update.inner, update.gain, update.scale, dtype
        )
    # Outside the function, because autograd forbids in-place changes (OLMo's clipping) of a view that it returned.
    return out.view(*x.shape[:-1], base.out_features)


class _FusedLayer(torch.autograd.Function):
    """The function of this module for x of (tokens, in), computed in one dtype, with gradients for all but W and bias.

    Matrices are saved in that dtype, vectors as they are.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        inner: Tensor | None,
        gain: Tensor | None,
        scale: float,
        dtype: torch.dtype,
    ) -> Tensor:
        rows, weight, down, up = (matrix.to(dtype) for matrix in (x, weight, a, b))
        bias = None if bias is None else bias.to(dtype)
        hidden = matmul_transposed(rows, down)
        scaled = hidden if inner is None else (hidden * inner).to(dtype)
        out = matmul_transposed(rows, weight, bias if gain is None else None).addmm_(scaled, up.t(), alpha=scale)
        unscaled = None
        if gain is not None:
            unscaled, gain = out, gain.to(dtype)
            out = torch.addcmul(unscaled, unscaled, gain)
            out = out if bias is None else out.add_(bias)
        ctx.save_for_backward(rows, weight, down, up, hidden, scaled, inner, gain, unscaled)
        ctx.scale, ctx.dtypes = scale, (x.dtype, a.dtype, b.dtype)
        return out

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight, down, up, hidden, scaled, inner, gain, unscaled = ctx.saved_tensors
        x_dtype, a_dtype, b_dtype = ctx.dtypes
        of_x = of_a = of_inner = of_gain = None
        if gain is not None:
            of_gain = (gradient * unscaled).sum(0, dtype=torch.promote_types(gradient.dtype, torch.float32))
            gradient = torch.addcmul(gradient, gradient, gain)
        # The products are (rank, tokens) and (rank, out), because in fp32 MKL takes up to four times as long where the
        # last dimension is a rank below 16. oneDNN does not for the first one, which it computes as (tokens, rank):
        # then it need not copy parts of the gradient to split the long sums.
        by_onednn = onednn.PREFERRED and gradient.dtype == torch.float32
        d_hidden = (matmul_transposed(gradient, up.t()).t() if by_onednn else up.t() @ gradient.t()).mul_(ctx.scale)
        if inner is not None:
            of_inner = (d_hidden * hidden.t()).sum(1, dtype=inner.dtype)
            d_hidden = (d_hidden * inner[:, None]).to(gradient.dtype)
        if ctx.needs_input_grad[0]:
            of_x = matmul_transposed(gradient, weight.t()).addmm_(d_hidden.t(), down).to(x_dtype)
        d_hidden, rows, scaled, gradient = (
            pad_rows(d_hidden.t()).t(),
            pad_rows(rows),
            pad_rows(scaled),
            pad_rows(gradient),
        )
        if ctx.needs_input_grad[3]:  # LoRA-FA freezes it
            of_a = matmul_transposed(d_hidden, rows.t()).to(a_dtype)
        of_b = matmul_transposed(scaled.t(), gradient.t()).mul_(ctx.scale).t().to(b_dtype)
        return of_x, None, None, of_a, of_b, of_inner, of_gain, None, None
