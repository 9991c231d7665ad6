"""Matrix products in 32 bits on a CPU, by oneDNN where torch's own choice, MKL, leaves AVX-512 unused.

That is on processors that are not Intel's. Products in bf16 torch hands to oneDNN itself. The operator taken here is
the one that torch's compiler puts in a linear layer's place.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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
"""oneDNN adds the terms of a sum one after the other, MKL in groups: in sums of more terms than these the error of
gradients was up to three times that of MKL's, in sums of these about the same."""
_FEW_ROWS = 128
"""Fewer rows than these are multiplied in one go by weights that would have to be copied part by part, which would take
as long as the product."""
_MATMUL = (torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__)


def _preferred() -> bool:
    """Say whether oneDNN is to be preferred here: without AVX-512 (EPYC, Zen 3) it is as fast as MKL."""
    info = Path("/proc/cpuinfo")
    vendor = info.read_text() if info.is_file() else platform.processor()
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "GenuineIntel" not in vendor
    )


PREFERRED = _preferred()


def emulates_bf16() -> bool:
    """Say whether a CPU has no instructions for bf16, so that torch's own loops multiply it."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and not supported()


def matmul_transposed(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return (rows, out), `x @ weight.t() + bias` of (rows, in), (out, in) and (out,), without a gradient.

    In 32 bits it is exact enough for gradients to be MKL's to 1e-5.
    """
    if not _supports(x, weight, bias):
        return functional.linear(x, weight, bias)
    terms, rows = x.shape[1], len(x)
    x = pad_rows(x)
    parts = 1 if len(x) < _FEW_ROWS and weight.is_contiguous() else -(-terms // _TERMS_PER_SUM)
    ends = [terms * part // parts for part in range(parts + 1)]
    made = _multiply(x[:, : ends[1]], weight[:, : ends[1]], bias)
    for start, end in pairwise(ends[1:]):
        made.add_(_multiply(x[:, start:end], weight[:, start:end], None))
    return made if len(made) == rows else made[:rows].clone()  # into a view of its result no function may write


def use_onednn_linear(model: nn.Module) -> None:
    """Have the linear layers of a model multiply so from now on, forward and backward."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = _Linear


def onednn_matmuls(layers: Sequence[Any]) -> AbstractContextManager[None]:
    """Have the products that layers make outside their linear layers computed so too until this is left."""
    return patched_forward((layer, partial(_forward, layer)) for layer in layers)


def padding_rows(rows: int) -> int:
    """Return how many rows to add to so many of packed texts, a sixteenth at most, that there be few numbers of rows.

    None are added where oneDNN multiplies nothing: on a GPU, or where MKL is as good and the processor has no bf16.
    """
    return 0 if torch.cuda.is_available() or (emulates_bf16() and not PREFERRED) else _rows_to_next_bucket(rows)


def pad_rows(x: Tensor) -> Tensor:
    """Return (rows, terms) with rows of zeros after them, so that there are few numbers of rows."""
    missing = _rows_to_next_bucket(len(x)) if _supports(x, x, None) else 0
    return functional.pad(x, (0, 0, 0, missing)) if missing else x


def is_linear(module: nn.Module) -> bool:
    """Say whether a module is torch's linear layer, taken or not, and no other library's."""
    return type(module) in (nn.Linear, _Linear)


def _rows_to_next_bucket(rows: int) -> int:
    """Return how many rows there are to the next of few numbers.

    For every number of rows oneDNN makes code of its own, about a megabyte a layer, and keeps it.
    """
    return -rows % max(1, (1 << rows.bit_length()) >> 5)


def _supports(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Say whether the operator takes these, which checks little by itself."""
    given = [x, weight] if bias is None else [x, weight, bias]
    return (
        PREFERRED
        and all(t.device.type == "cpu" and t.dtype == torch.float32 and t.layout == torch.strided for t in given)
        and x.dim() >= 2
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or bias.shape == weight.shape[:1])
        and x.numel() > 0
    )


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what torch's function with these parameters does, with gradients."""
    if torch.is_autocast_enabled("cpu") or not _supports(input, weight, bias):
        return functional.linear(input, weight, bias)
    rows = input.flatten(0, -2)
    if torch.is_grad_enabled():
        made: Tensor = _Product.apply(rows, weight, bias)  # type: ignore[no-untyped-call]
    else:  # nothing is learnt, and a rounding of some 4e-7 is as good as one of 3e-7
        made = _multiply(pad_rows(rows), weight, bias)[: len(rows)]
    return made.view(*input.shape[:-1], len(weight))


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # With gaps between the rows of `weight` the operator falls back to a loop, a thousand times as slow.
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    bias = None if bias is None else bias.contiguous()  # of which it does not heed the stride
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made


class _Linear(nn.Linear):
    """torch's linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        return _linear(input, self.weight, self.bias)


def _forward(layer: Any, *given: Any, **named: Any) -> Any:
    with _MatmulMode():
        return type(layer).forward(layer, *given, **named)


class _MatmulMode(TorchFunctionMode):
    """Hands on all calls of torch but those that multiply by a matrix."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        given: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is functional.linear:
            return _linear(*given, **(named or {}))
        if function in _MATMUL and not named and given[0].dim() >= 2 and given[1].dim() == 2:
            return _linear(given[0], given[1].t())
        return function(*given, **(named or {}))


class _Product(torch.autograd.Function):
    """`product` with gradients for all that it takes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return matmul_transposed(x, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        made = None
        if of_weight:  # the narrower one first, which is up to seven times as fast
            first, second = sorted((gradient, x), key=lambda matrix: matrix.shape[1])
            made = matmul_transposed(pad_rows(first).t(), pad_rows(second).t())
            made = made if first is gradient else made.t()
        return matmul_transposed(gradient, weight.t()) if of_x else None, made, gradient.sum(0) if of_bias else None
