"""fp32 products equal exact ones up to rounding, whichever library computes them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import ADAPTERS, cases
from runs import moved, plan_of
from torch import nn

from whichlora.data.encoding import Encoder
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels import onednn
from whichlora.models.kernels.low_rank import fusable_layers, fused
from whichlora.models.loading import load_model, locate

chosen = pytest.mark.skipif(not onednn.PREFERRED, reason="needs a processor with AVX-512 that is not Intel's")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apart(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.double() - right).norm() / right.norm())


def test_onednn_is_preferred_on_amd_with_avx512_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN was not measured there; without AVX-512 it is no faster."""
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    for vendor, chosen in (("GenuineIntel", False), ("AuthenticAMD", True)):
        monkeypatch.setattr(Path, "read_text", lambda _, vendor=vendor: f"processor\t: 0\nvendor_id\t: {vendor}\n")
        assert onednn._preferred() == chosen
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not onednn._preferred()


@pytest.mark.parametrize(
    ("rows", "terms", "out"), [(1, 576, 30), (130, 512, 64), (130, 513, 64), (200, 1536, 8), (8, 2000, 70)]
)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_product_is_exact_up_to_rounding(rows: int, terms: int, out: int, turned: bool, cut: int) -> None:
    """Whatever the memory layout of the matrices: transposed, or with gaps between rows."""
    x, weight, bias = random(rows, terms + cut), random(out, terms + cut, seed=1), random(out, seed=2)
    if turned:
        x, weight = x.t().contiguous().t(), weight.t().contiguous().t()
    x, weight = x[:, cut:], weight[:, cut:]
    assert apart(onednn.matmul_transposed(x, weight), x.double() @ weight.double().t()) < 1e-6
    right = x.double() @ weight.double().t() + bias.double()
    assert apart(onednn.matmul_transposed(x, weight, bias), right) < 1e-6


@pytest.mark.parametrize(
    ("chosen", "emulated", "gpu", "fills"),
    [
        (True, False, False, True),
        (False, False, False, True),
        (True, True, False, True),
        (False, True, False, False),
        (True, False, True, False),
    ],
)
def test_rows_are_padded_only_where_onednn_multiplies(
    chosen: bool, emulated: bool, gpu: bool, fills: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "PREFERRED", chosen)
    monkeypatch.setattr(onednn, "emulates_bf16", lambda: emulated)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert (onednn.padding_rows(1000) > 0) == fills


def test_there_are_few_distinct_row_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each of them oneDNN caches a megabyte of code per layer."""
    monkeypatch.setattr(onednn, "PREFERRED", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = {rows + onednn.padding_rows(rows) for rows in range(1, 4097)}
    assert len(made) < 160
    assert all(0 <= onednn.padding_rows(rows) <= rows / 16 for rows in range(1, 4097))


@chosen
def test_long_sums_are_split() -> None:
    x, weight = random(200, 8192), random(80, 8192, seed=1)
    right = x.double() @ weight.double().t()
    ways = (onednn.matmul_transposed(x, weight), x @ weight.t(), onednn._multiply(x, weight, None))
    mine, usual, undivided = (apart(made, right) for made in ways)
    assert mine < 2 * usual
    assert mine < undivided


@pytest.mark.parametrize("stride", [0, 2])
def test_a_bias_may_have_any_stride(stride: int) -> None:
    x, weight, bias = random(5, 7), random(4, 7, seed=1), random(8, seed=2).as_strided((4,), (stride,))
    assert apart(onednn.matmul_transposed(x, weight, bias), x.double() @ weight.double().t() + bias.double()) < 1e-6


def test_mismatched_shapes_raise_torchs_error() -> None:
    layer = nn.Sequential(nn.Linear(7, 4))
    onednn.use_onednn_linear(layer)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        layer(random(5, 6))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        onednn.matmul_transposed(random(200, 600), random(30, 700))


def test_no_rows_give_an_empty_result() -> None:
    assert onednn.matmul_transposed(random(0, 5), random(3, 5)).shape == (0, 3)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "out"), [(40, 700), (700, 40)])
def test_a_replaced_layer_has_the_same_result_and_gradients(frozen: bool, bias: bool, width: int, out: int) -> None:
    layer = nn.Linear(width, out, bias=bias).requires_grad_(not frozen)
    taken = nn.Sequential(copy.deepcopy(layer))
    onednn.use_onednn_linear(taken)
    found: list[dict[str, torch.Tensor]] = []
    for own, x in ((layer.double(), random(2, 90, width).double()), (taken, random(2, 90, width))):
        made = own(x.requires_grad_())
        (made * random(2, 90, out, seed=1)).sum().backward()
        gradients = {name.rpartition(".")[2]: p.grad for name, p in own.named_parameters()}
        found.append({"made": made.detach(), "x": x.grad, **gradients})  # type: ignore[dict-item]
    right, mine = found
    for name in ("made", "x") if frozen else right:
        assert apart(mine[name], right[name]) < 1e-6, name
    assert frozen == (mine["weight"] is None)


def test_a_loaded_model_has_replaced_layers_and_the_same_logits(tiny_model: str) -> None:
    from transformers import AutoModelForCausalLM

    model: Any = load_model(locate(tiny_model), precision="fp32", quantization="none")
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert {type(layer) for layer in layers} == {onednn._Linear}
    assert all(onednn.is_linear(layer) for layer in layers)
    assert type(copy.deepcopy(layers[0])) is onednn._Linear
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        usual = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)(ids).logits
        torch.testing.assert_close(model(ids).logits, usual)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layers[0](random(2, layers[0].in_features)).dtype == torch.bfloat16


@chosen
@pytest.mark.parametrize("variant", cases(ADAPTERS))
def test_every_variant_has_the_same_gradients_with_onednn_matmuls(
    tiny_model: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant)
    encoder = Encoder(plan.task, plan.tokenizer)
    batch = packing.pack([encoder.example(i) for i in plan.mixture.train[:6]])

    def gradients(model: Any, *, taken: bool) -> dict[str, torch.Tensor]:
        monkeypatch.setattr(onednn, "PREFERRED", taken)
        plain = fusable_layers(model)
        others = [layer for _, layer in adapter_modules(model) if layer not in plain]
        with packing.attention(model), fused(plain), onednn.onednn_matmuls(others):
            loss, count = answer_loss(model.train(), batch)
            (loss / count).backward()
        assert all("forward" not in vars(layer) for layer in others)
        return {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}

    exact = gradients(moved(plan).double(), taken=False)
    usual, mine = (gradients(moved(plan), taken=taken) for taken in (False, True))
    assert exact.keys() == usual.keys() == mine.keys() != set()
    whole = torch.stack([right.norm() for right in exact.values()]).norm()
    for name, right in exact.items():
        allowed = 3 * (usual[name] - right).norm() + 1e-5 * right.norm() + 1e-6 * whole
        assert (mine[name] - right).norm() <= allowed, name


@chosen
def test_products_inside_a_layer_use_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(input=x, weight=a) @ b + torch.matmul(x, c)

    a, b, c, x = random(4, 6), random(4, 5), random(6, 5), random(2, 3, 6)
    layer, shapes = Layer(), []
    right = layer(x)

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        shapes.append(tuple(weight.shape))
        return nn.functional.linear(x, weight, bias)

    monkeypatch.setattr(onednn, "matmul_transposed", counted)
    with onednn.onednn_matmuls([layer]):
        torch.testing.assert_close(layer(x), right)
    assert shapes == [(4, 6), (5, 4), (5, 6)]
    layer(x)
    assert len(shapes) == 3
