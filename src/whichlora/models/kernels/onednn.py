"""fp32 matrix products on the CPU by oneDNN, for processors on which torch's default, MKL, does not use AVX-512.

torch multiplies fp32 matrices with MKL, which uses AVX-512 on Intel's processors only; on an AMD processor with AVX-512
oneDNN is faster. (bf16 products go to oneDNN in torch itself.) This module calls `mkldnn._linear_pointwise`, the
operator that torch's compiler (Inductor) substitutes for linear layers.

The products are the same up to rounding. oneDNN adds the terms of a dot product one after the other, MKL in groups, so
long sums are split here (`_TERMS_PER_SUM`) to keep gradients as accurate as MKL's. On all other machines, dtypes and
devices every function falls back to torch's own.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from whichlora.models.kernels.patching import patched_forward

_TERMS_PER_SUM = 512
"""Longest dot product that oneDNN computes in one call: above this length the error of gradients was up to three times
MKL's, at this length about the same."""
_FEW_ROWS = 128
"""Below this many rows sums are not split where the weight is contiguous: slices of it would have to be copied, which
takes as long as the product."""
_MATMUL = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)


def _preferred() -> bool:
    """Return whether oneDNN is faster than MKL on this machine; without AVX-512 (EPYC, Zen 3) it is only as fast."""
    info = Path("/proc/cpuinfo")
    vendor = info.read_text() if info.is_file() else platform.processor()
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in vendor
    )


PREFERRED = _preferred()
"""Whether fp32 products on the CPU are computed by oneDNN in this process."""


def emulates_bf16() -> bool:
    """Return whether the CPU lacks bf16 instructions, so that torch multiplies bf16 matrices by slow loops."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def matmul_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x @ weight.t() + bias`, (rows, out), without autograd.

    In fp32 it is accurate enough for gradients to equal MKL's to 1e-5.

    Args:
        x: (rows, in).
        weight: (out, in).
        bias: (out,), or None.
    """
    if not _supports(x, weight, bias):
        return functional.linear(x, weight, bias)
    terms, rows = x.shape[1], len(x)
    x = pad_rows(x)
    parts = 1 if len(x) < _FEW_ROWS and weight.is_contiguous() else -(-terms // _TERMS_PER_SUM)
    ends = [terms * part // parts for part in range(parts + 1)]
    out = _multiply(x[:, : ends[1]], weight[:, : ends[1]], bias)
    for start, end in pairwise(ends[1:]):
        out.add_(_multiply(x[:, start:end], weight[:, start:end], None))
    # A clone, because autograd forbids in-place changes of a view that a custom function returns.
    return out if len(out) == rows else out[:rows].clone()


def use_onednn_linear(model: nn.Module) -> None:
    """Replace the class of a model's `nn.Linear` layers, in place, so that oneDNN computes them and their gradients."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Linear


@contextmanager
def plain_linears(model: nn.Module) -> Iterator[None]:
    """Give a model's `nn.Linear` layers torch's own class within this context: some PEFT methods refuse subclasses."""
    replaced: list[nn.Module] = [module for module in model.modules() if type(module) is _Linear]
    for module in replaced:
        module.__class__ = nn.Linear
    try:
        yield
    finally:
        for module in replaced:
            module.__class__ = _Linear


def onednn_matmuls(layers: Sequence[Any]) -> AbstractContextManager[None]:
    """Within this context, let oneDNN also compute the matrix products in the `forward` of adapter layers."""
    return patched_forward((layer, partial(_forward, layer)) for layer in layers)


def padding_rows(rows: int) -> int:
    """Return the padding rows (at most 1/16) that round a packed batch's row count up to a bucket size.

    With few distinct row counts oneDNN compiles and caches few kernels. Returns 0 if oneDNN is not used: on a GPU,
    or if MKL is as fast and the CPU lacks bf16 instructions.
    """
    return 0 if torch.cuda.is_available() or (emulates_bf16() and not PREFERRED) else _rows_to_next_bucket(rows)


def pad_rows(x: Tensor) -> Tensor:
    """Return a (rows, terms) matrix with zero rows appended up to the next bucket size, if oneDNN multiplies it."""
    missing = _rows_to_next_bucket(len(x)) if _supports(x, x, None) else 0
    return functional.pad(x, (0, 0, 0, missing)) if missing else x


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is torch's linear layer, also after `use_onednn_linear`, and no other subclass."""
    return type(module) in (nn.Linear, _Linear)


def _rows_to_next_bucket(rows: int) -> int:
    """Return the number of rows missing to the next bucket size.

    For each row count oneDNN generates and keeps a kernel of about a megabyte per layer.
    """
    return -rows % max(1, (1 << rows.bit_length()) >> 5)


def _supports(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Return whether oneDNN is preferred and its operator accepts these tensors; the operator itself checks little."""
    tensors = [x, weight] if bias is None else [x, weight, bias]
    return (
        PREFERRED
        and all(t.device.type == "cpu" and t.dtype == torch.float32 and t.layout == torch.strided for t in tensors)
        and x.dim() >= 2
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and x.numel() > 0
    )


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Replacement for `torch.nn.functional.linear`, with gradients; the parameters have the same names."""
    if torch.is_autocast_enabled("cpu") or not _supports(input, weight, bias):
        return functional.linear(input, weight, bias)
    rows = input.flatten(0, -2)
    if torch.is_grad_enabled():
        out: Tensor = _LinearFunction.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    else:  # without gradients a rounding error of 4e-7 (3e-7 with split sums) does not matter
        out = _multiply(pad_rows(rows), weight, bias)[: len(rows)]
    return out.view(*input.shape[:-1], len(weight))


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # With gaps between the rows of `weight` the operator falls back to a loop that is a thousand times slower.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()  # the operator ignores the stride of a bias
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


class _Linear(nn.Linear):
    """`nn.Linear` computed by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        return _linear(input, self.weight, self.bias)


def _forward(layer: Any, *args: Any, **kwargs: Any) -> Any:
    with _MatmulMode():
        return type(layer).forward(layer, *args, **kwargs)


class _MatmulMode(TorchFunctionMode):
    """Redirects linear layers and products with a 2-D matrix to oneDNN; all other torch functions run unchanged."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        if func in _MATMUL and not kwargs and args[0].dim() >= 2 and args[1].dim() == 2:
            return _linear(args[0], args[1].t())
        return func(*args, **(kwargs or {}))


class _LinearFunction(torch.autograd.Function):
    """`matmul_transposed` with gradients for all three inputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return matmul_transposed(x, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        x_needs_grad, weight_needs_grad, bias_needs_grad = ctx.needs_input_grad
        weight_gradient = None
        if weight_needs_grad:  # narrower matrix first: up to seven times as fast
            first, second = sorted((gradient, x), key=lambda matrix: matrix.shape[1])
            weight_gradient = matmul_transposed(pad_rows(first).t(), pad_rows(second).t())
            weight_gradient = weight_gradient if first is gradient else weight_gradient.t()
        return (
            matmul_transposed(gradient, weight.t()) if x_needs_grad else None,
            weight_gradient,
            gradient.sum(0) if bias_needs_grad else None,
        )
