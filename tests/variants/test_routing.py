"""The routed AdamW: who wins by which score, what the losers keep, and its limits, which are other optimisers."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from whichlora.variants.routing import Part, RoutedAdamW

RATE, FULL_RATE, SCALE = 1e-3, 5e-4, 2.0


class Layer(nn.Module):
    """A linear layer (out 6, in 4) with two LoRA experts of ranks 2 and 1, which are slices of A and B."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4))
        self.down = nn.Parameter(torch.rand(3, 4) - 0.5)
        self.up = nn.Parameter(torch.zeros(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + SCALE * x @ self.down.T @ self.up.T

    def experts(self) -> dict[str, list[Part]]:
        slices = {"two": (0, 2), "one": (2, 1)}
        loras = {name: [Part(self.down, 0, *span), Part(self.up, 1, *span)] for name, span in slices.items()}
        return {"weight": [Part(self.weight)], **loras}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(Layer(), nn.LayerNorm(6), nn.Linear(6, 4), Layer())


def routed(
    model: nn.Sequential,
    *,
    score: str = "epd",
    topk: int = 1,
    full_rate: float = FULL_RATE,
    lora_rate: float = RATE,
    decay: float = 0.0,
) -> RoutedAdamW:
    layers = {f"layer.{n}": module for n, module in enumerate(model) if isinstance(module, Layer)}
    factors = [p for layer in layers.values() for p in (layer.down, layer.up)]
    weights = [p for p in model.parameters() if all(p is not other for other in factors)]
    groups = [
        {"params": factors, "lr": lora_rate, "weight_decay": decay / 10},
        {"params": weights, "lr": full_rate, "weight_decay": decay},
    ]
    return RoutedAdamW(groups, {name: layer.experts() for name, layer in layers.items()}, score=score, topk=topk)


def backward(model: nn.Module, step: int = 0, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    model.zero_grad()
    x, y = torch.randn(32, 4, generator=generator), torch.randn(32, 6, generator=generator)
    (scale * (model(x) - y).square().sum()).backward()


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, start: int = 0) -> dict[str, torch.Tensor]:
    for step in range(start, start + steps):
        backward(model, step)
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-5, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


def state_of(optimizer: RoutedAdamW) -> list[dict[str, Any]]:
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]


def test_the_gradients_of_the_first_step_are_those_of_the_weight_times_the_factors() -> None:
    model = network()
    backward(model)
    layer = model[3]
    torch.testing.assert_close(layer.up.grad, SCALE * layer.weight.grad @ layer.down.T)
    assert not layer.down.grad.any()


def test_the_first_scores_are_the_mean_gradients_times_the_rate() -> None:
    """With m = .1 g and v = .001 g^2, EPD is .1^2 / sqrt(.001) eta / N sum |g|; A has no gradient but counts in N."""
    model = network()
    optimizer = routed(model)
    trained(model, optimizer, 1)
    layer, scores = model[0], optimizer.scores()["layer.0"]
    up = layer.up.grad.abs()
    factor = 0.01 / 0.001**0.5
    assert scores["weight"] == pytest.approx(factor * FULL_RATE * layer.weight.grad.abs().sum().item() / 24, rel=1e-4)
    assert scores["two"] == pytest.approx(factor * RATE * up[:, :2].sum().item() / 20, rel=1e-4)
    assert scores["one"] == pytest.approx(factor * RATE * up[:, 2].sum().item() / 10, rel=1e-4)


def test_the_first_norms_are_the_shares_of_weights_with_a_gradient() -> None:
    model = network()
    optimizer = routed(model, score="pfn")
    trained(model, optimizer, 1)
    full = 0.1 / 0.001**0.5
    assert optimizer.scores()["layer.3"] == pytest.approx(
        {"weight": full, "two": full * (12 / 20) ** 0.5, "one": full * (6 / 10) ** 0.5}, rel=1e-4
    )


@pytest.mark.parametrize(("score", "power"), [("epd", 1), ("pfn", 0)])
def test_scores_of_scaled_gradients(score: str, power: int) -> None:
    scores = []
    for scale in (1.0, 64.0):
        model = network()
        optimizer = routed(model, score=score)
        backward(model, scale=scale)
        optimizer.step()
        scores.append(optimizer.scores()["layer.0"])
    assert scores[1] == pytest.approx({name: 64**power * value for name, value in scores[0].items()}, rel=1e-4)


@pytest.mark.parametrize(("score", "factor"), [("epd", 0.5), ("pfn", 1)])
def test_the_scheduled_rate_is_in_the_score_of_epd(score: str, factor: float) -> None:
    model = network()
    optimizer = routed(model, score=score, decay=0.5)
    trained(model, optimizer, 2)
    before = optimizer.scores()["layer.0"]
    for group in optimizer.param_groups:
        group["lr"] *= 0.5
        group["weight_decay"] = 7.0  # not in the score
    assert optimizer.scores()["layer.0"] == pytest.approx({name: factor * value for name, value in before.items()})


def test_only_the_winner_moves_and_decays_while_all_moments_and_counts_advance() -> None:
    model = network()
    optimizer = routed(model, decay=0.1)
    names = {p: name for name, p in model.named_parameters()}
    mean, square = ({name: torch.zeros_like(p) for p, name in names.items()} for _ in range(2))
    for step in range(4):
        before = {name: p.detach().clone() for p, name in names.items()}
        backward(model, step)
        optimizer.step()
        for p, name in names.items():
            mean[name] = 0.9 * mean[name] + 0.1 * p.grad
            square[name] = 0.999 * square[name] + 0.001 * p.grad**2
            assert optimizer.state[p]["step"] == step + 1
            torch.testing.assert_close(optimizer.state[p]["exp_avg"], mean[name])
            torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"], square[name])
        for experts, row in zip(optimizer.modules.values(), optimizer.winners[-1].tolist(), strict=True):
            assert sum(row) == 1
            for parts, won in zip(experts.values(), row, strict=True):
                for part in parts:
                    assert won != part.of(part.parameter).equal(part.of(before[names[part.parameter]]))
    won = torch.stack(optimizer.winners).any(0).any(0)
    assert won.sum() > 1, "the test sees no change of the winner"


def test_weight_decay_is_that_of_the_winner_s_group() -> None:
    """With a huge decay: p (1 - eta wd), then the step, which is eta sign(g) at first."""
    model = network()
    optimizer = routed(model, topk=3, decay=100.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    after = trained(model, optimizer, 1)
    sign = model[0].weight.grad.sign()
    torch.testing.assert_close(after["0.weight"], before["0.weight"] * (1 - FULL_RATE * 100) - FULL_RATE * sign)
    torch.testing.assert_close(after["0.down"], before["0.down"] * (1 - RATE * 10))


@pytest.mark.parametrize("topk", [3, 9])
def test_with_all_experts_as_winners_it_is_adamw(topk: int) -> None:
    model, other = network(), network()
    optimizer = routed(model, topk=topk, decay=0.3)
    groups = [{**group, "params": []} for group in optimizer.param_groups]
    twins = dict(zip(model.parameters(), other.parameters(), strict=True))
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        group["params"] = [twins[p] for p in own["params"]]
    assert_equal(trained(model, optimizer, 5), trained(other, torch.optim.AdamW(groups, eps=1e-8), 5))
    assert torch.stack(optimizer.winners).all()


def test_without_a_rate_for_lora_it_is_full_fine_tuning() -> None:
    model, other = network(), network()
    optimizer = routed(model, lora_rate=0.0, decay=0.1)
    weights = [p for name, p in other.named_parameters() if "down" not in name and "up" not in name]
    adamw = torch.optim.AdamW(weights, lr=FULL_RATE, weight_decay=0.1)
    assert_equal(trained(model, optimizer, 5), trained(other, adamw, 5))
    assert not model[0].up.any()
    assert torch.stack(optimizer.winners)[:, :, 0].all()


def test_without_a_rate_for_the_weights_and_with_one_expert_it_is_lora() -> None:
    model, other = network(), network()
    layers = {str(n): model[n] for n in (0, 3)}
    experts = {name: {"weight": [Part(x.weight)], "lora": [Part(x.down), Part(x.up)]} for name, x in layers.items()}
    factors = [p for x in layers.values() for p in (x.down, x.up)]
    weights = [x.weight for x in layers.values()]
    groups = [
        {"params": factors, "lr": RATE, "weight_decay": 0.1},
        {"params": weights, "lr": 0.0, "weight_decay": 0.1},
    ]
    optimizer = RoutedAdamW(groups, experts, score="epd", topk=1)
    lora = [p for name, p in other.named_parameters() if "down" in name or "up" in name]
    adamw = torch.optim.AdamW(lora, lr=RATE, weight_decay=0.1)
    assert_equal(trained(model, optimizer, 5), trained(other, adamw, 5))


def test_a_tie_goes_to_the_earlier_expert() -> None:
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    groups = [{"params": [a, b], "lr": RATE, "weight_decay": 0.0}]
    optimizer = RoutedAdamW(groups, {"m": {"first": [Part(a)], "second": [Part(b)]}}, score="epd", topk=1)
    a.grad, b.grad = torch.ones(3), torch.ones(3)
    optimizer.step()
    assert optimizer.winners[-1].tolist() == [[True, False]]
    assert (b == 1).all()


def test_in_a_step_with_rate_0_nobody_wins_and_without_gradients_nothing_advances() -> None:
    model = network()
    optimizer = routed(model, full_rate=0.0, lora_rate=0.0)
    trained(model, optimizer, 1)  # the first step of a warm-up
    assert not optimizer.winners[-1].any()
    model.zero_grad()
    optimizer.step()
    assert {state["step"] for state in state_of(optimizer)} == {1}


@pytest.mark.parametrize("score", ["epd", "pfn"])
def test_a_resumed_optimizer_continues_as_if_uninterrupted(score: str) -> None:
    model, whole = network(), network()
    before, uninterrupted = routed(model, score=score, decay=0.1), routed(whole, score=score, decay=0.1)
    weights = trained(model, before, 3)
    buffer = io.BytesIO()
    torch.save(before.state_dict(), buffer)
    resumed = network()
    resumed.load_state_dict(weights)
    after = routed(resumed, score=score, decay=0.1)
    after.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    actual, expected = trained(resumed, after, 4, start=3), trained(whole, uninterrupted, 7)
    assert all(tensor.equal(expected[name]) for name, tensor in actual.items())
    assert torch.stack(after.winners).equal(torch.stack(uninterrupted.winners))
    forgetful = network()
    forgetful.load_state_dict(weights)
    lost = trained(forgetful, routed(forgetful, score=score, decay=0.1), 4, start=3)
    assert any(not tensor.equal(expected[name]) for name, tensor in lost.items())


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = network(), network()
    expected = trained(model, routed(model, decay=0.1), 3)
    monkeypatch.setattr("whichlora.variants.routing._CHUNK", 25)
    assert all(p.equal(expected[n]) for n, p in trained(other, routed(other, decay=0.1), 3).items())


def test_scores_are_read_from_the_device_at_once() -> None:
    read = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten._local_scalar_dense.default:
                read.append(args)
            return function(*args, **(kwargs or {}))

    model = network()
    optimizer = routed(model)
    backward(model)
    with Reads():
        optimizer.step()
    assert not read
