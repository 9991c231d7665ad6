"""The short backward pass of RMS norms gives autograd's gradients, for every architecture's own class of norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.cohere2.modeling_cohere2 import Cohere2LayerNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from whichlora.models.kernels.norms import norms_with_short_backward
from whichlora.models.kernels.patching import patched_forward

WIDTH = 24
NORMS = [Gemma3RMSNorm, LlamaRMSNorm, Olmo2RMSNorm, Qwen3RMSNorm]


class ScaledRMSNorm(LlamaRMSNorm):
    """No root-mean-square norm, though its name says so."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states) + 0.01 * hidden_states


def norm_of(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(1)
    norm = kind(WIDTH, eps=1e-2)
    nn.init.normal_(norm.weight, std=0.5)  # type: ignore[arg-type]
    return norm.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", NORMS)
def test_gradients_are_those_of_autograd(kind: type[nn.Module], transposed: bool) -> None:
    norm = norm_of(kind)
    states = (0.2 * torch.randn(3, 5, 7, WIDTH)).requires_grad_()
    inputs = states.transpose(1, 2) if transposed else states
    expected = norm(inputs)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, states, upstream)
    with patched_forward(norms_with_short_backward(nn.ModuleList([norm]))):
        output = norm(inputs)
        assert type(output.grad_fn).__name__ == "_RmsNormBackward"
        (ours,) = torch.autograd.grad(output, states, upstream)
    assert torch.equal(output, expected)
    assert float((ours - gradient).norm()) < 1e-6 * float(gradient.norm())


@pytest.mark.parametrize("kind", NORMS)
def test_in_bf16_gradients_are_as_exact_as_those_of_autograd(kind: type[nn.Module]) -> None:
    norm, precise = norm_of(kind, torch.bfloat16), norm_of(kind, torch.bfloat16).double()
    states = torch.randn(50, WIDTH).bfloat16().requires_grad_()
    upstream = torch.randn(50, WIDTH).bfloat16()

    def gradient(norm: nn.Module, states: torch.Tensor) -> torch.Tensor:
        output = norm(states)
        return torch.autograd.grad(output, states, upstream.to(output.dtype))[0].double()

    exact = gradient(precise, states.detach().double().requires_grad_())
    autograds = gradient(norm, states)
    with patched_forward(norms_with_short_backward(nn.ModuleList([norm]))):
        ours = gradient(norm, states)
    assert float((ours - exact).norm()) < min(0.004 * float(exact.norm()), 1.1 * float((autograds - exact).norm()))


def test_other_norms_and_trained_ones_are_left_alone() -> None:
    others = [Cohere2LayerNorm(WIDTH), nn.LayerNorm(WIDTH), norm_of(ScaledRMSNorm), norm_of(LlamaRMSNorm)]
    others[-1].requires_grad_(True)
    assert norms_with_short_backward(nn.ModuleList(others)) == []
