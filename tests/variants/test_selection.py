"""The rules that choose layers to train in full."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn

from whichlora.errors import NonFiniteError, OptionError, ProofError
from whichlora.variants import AdapterSettings, selection
from whichlora.variants.selection import (
    check_selection,
    coverage,
    effective_rank,
    gradient_scores,
    random_scores,
    select,
    spectral_scores,
    squared_singular_values,
    within_budget,
)

SHAPES = {"a.up": (6, 10), "a.down": (10, 6), "b.up": (6, 10), "b.down": (10, 6), "b.gate": (6, 3)}


class Layers(nn.Module):
    """Linear layers that are called one after the other, in blocks a and b."""

    def __init__(self) -> None:
        super().__init__()
        for block in ("a", "b"):
            own = {name.partition(".")[2]: size for name, size in SHAPES.items() if name.startswith(block)}
            self.add_module(block, nn.ModuleDict({name: nn.Linear(*size) for name, size in own.items()}))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in ("a.up", "a.down", "b.up", "b.down", "b.gate"):
            x = torch.tanh(self.get_submodule(name)(x))
        return x


@pytest.fixture
def model() -> Layers:
    torch.manual_seed(0)
    return Layers()


def settings(rank: int = 2, seed: int = 1, **options: Any) -> AdapterSettings:
    return AdapterSettings(
        rank=rank,
        alpha=16,
        dropout=0.0,
        target_modules=tuple(SHAPES),
        options={"selection": "gradient", "full_share": 0.5, "full_rate": 0.04, **options},
        seed=seed,
        total_steps=5,
    )


def losses() -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 6, generator=generator) for _ in range(3)]
    return [lambda model, batch=batch: model(batch).square().mean() for batch in batches]


def passes(*functions: Any) -> list[Any]:
    return [lambda model, loss=loss: loss(model).backward() for loss in functions or losses()]


def orthogonal(width: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(width, width)).Q


def test_effective_rank_and_coverage_of_known_spectra() -> None:
    equal = squared_singular_values(3.0 * torch.eye(7, 9), "w")
    assert effective_rank(equal.sqrt()) == pytest.approx(7)
    assert coverage(equal, 2) == pytest.approx(2 / 7)
    single = squared_singular_values(torch.outer(torch.arange(1.0, 5), torch.ones(3)), "w")
    assert effective_rank(single.sqrt()) == pytest.approx(1, abs=1e-6)
    assert coverage(single, 1) == pytest.approx(1)
    zeros = squared_singular_values(torch.zeros(3, 4), "w")
    assert (effective_rank(zeros.sqrt()), coverage(zeros, 1)) == (0.0, 1.0)
    matrix = torch.randn(5, 8, dtype=torch.float64)
    assert squared_singular_values(matrix, "w").sqrt().allclose(torch.linalg.svdvals(matrix))
    with pytest.raises(NonFiniteError, match="w is not finite"):
        squared_singular_values(torch.full((2, 2), torch.inf), "w")


@pytest.mark.parametrize("change", ["scale", "rotate"])
def test_spectral_scores_depend_on_the_shape_of_the_spectrum_alone(model: Layers, change: str) -> None:
    before = spectral_scores(model, SHAPES, 2)
    with torch.no_grad():
        for name in SHAPES:
            weight = model.get_submodule(name).weight
            new = 7.5 * weight if change == "scale" else orthogonal(len(weight)) @ weight @ orthogonal(weight.shape[1])
            weight.copy_(new)
    after = spectral_scores(model, SHAPES, 2)
    for name, measures in before.items():
        assert after[name] == pytest.approx(measures, rel=1e-4)


def test_the_term_that_is_left_out_says_nothing_but_the_condition_number(model: Layers) -> None:
    values = torch.linalg.svdvals(model.get_submodule("a.up").weight.detach().double())
    mean_step = float(values.log().diff().abs().mean())
    condition = spectral_scores(model, SHAPES, 2)["a.up"]["condition_number"]
    assert mean_step == pytest.approx(torch.tensor(condition).log().item() / (len(values) - 1), rel=1e-5)
    flat = {"w": (4, 4)}
    holder = nn.ModuleDict({"w": nn.Linear(4, 4)})
    holder["w"].weight.data = torch.eye(4)
    assert spectral_scores(holder, flat, 1)["w"]["score"] == pytest.approx(0.3 + 0.3 * 3 / 4 + 0.02 * 0.6931472)


def test_the_gradient_score_is_the_energy_that_the_rank_misses(model: Layers) -> None:
    model.train()
    total = sum(loss(model) for loss in losses()) / 3
    expected = {}
    for name in SHAPES:
        (gradient,) = torch.autograd.grad(total, model.get_submodule(name).weight, retain_graph=True)
        values = torch.linalg.svdvals(gradient.double())
        expected[name] = float(values[2:].square().sum()) / gradient.numel()
    found = gradient_scores(model, SHAPES, 2, passes())
    assert {name: measures["score"] for name, measures in found.items()} == pytest.approx(expected, rel=1e-4, abs=1e-12)
    assert model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_gradients_held_in_parts_are_the_same(model: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gradient_scores(model, SHAPES, 2, passes())
    monkeypatch.setattr(selection, "_ENTRIES_AT_ONCE", 70)
    parts = gradient_scores(model, SHAPES, 2, passes())
    assert list(parts) == list(whole)
    for name, measures in whole.items():
        assert parts[name] == pytest.approx(measures, rel=1e-5)


def test_gradients_that_say_nothing_are_refused(model: Layers) -> None:
    with pytest.raises(ProofError, match="give no gradient"):
        gradient_scores(model, SHAPES, 2, passes(lambda model: 0 * model(torch.ones(2, 6)).sum()))
    with pytest.raises(NonFiniteError, match=r"the gradient of a\.up is not finite"):
        gradient_scores(model, SHAPES, 2, passes(lambda model: torch.inf * model(torch.ones(2, 6)).sum()))


def test_a_weight_without_a_gradient_has_the_lowest_score(model: Layers) -> None:
    """An expert to which no token is sent."""
    found = gradient_scores(model, SHAPES, 2, passes(lambda model: model.get_submodule("a.up")(torch.ones(2, 6)).sum()))
    assert found["b.up"] == {"score": 0.0, "coverage": 1.0, "energy": 0.0}


def test_random_depends_on_the_seed_alone(model: Layers) -> None:
    def chosen(**changes: Any) -> tuple[str, ...]:
        return select(model, SHAPES, settings(selection="random", **changes), []).names

    assert chosen() == chosen(rank=4) == chosen(full_rate=0.5)
    assert len({chosen(seed=seed) for seed in range(20)}) > 5
    assert chosen() == select(Layers(), SHAPES, settings(selection="random"), []).names  # other weights
    random.seed(1)
    assert chosen() == chosen()
    assert random_scores(SHAPES, 1) != random_scores(SHAPES, 2)


@pytest.mark.parametrize("rule", ["gradient", "spectral", "random"])
def test_no_rule_passes_the_budget_or_draws_a_random_number(model: Layers, rule: str) -> None:
    sizes = {name: a * b for name, (a, b) in SHAPES.items()}
    state = torch.get_rng_state()
    for share in (0.07, 0.1, 0.3, 0.5, 0.9, 1.0):
        names = select(model, SHAPES, settings(selection=rule, full_share=share), passes()).names
        used = sum(sizes[name] for name in names)
        assert names
        assert used <= share * sum(sizes.values())
        left = share * sum(sizes.values()) - used
        assert all(sizes[name] > left for name in SHAPES if name not in names)
        assert list(names) == [name for name in SHAPES if name in names]
    assert len(names) == len(SHAPES)
    assert select(model, SHAPES, settings(selection=rule, full_share=0.0), passes()).names == ()
    assert torch.get_rng_state().equal(state)


def test_a_share_that_is_exact_in_decimals_is_not_lost_to_rounding() -> None:
    shapes = {"a": (1, 29), "b": (1, 71)}
    assert 0.29 * 100 < 29
    assert within_budget(["a", "b"], shapes, 0.29) == ("a",)


def test_layers_are_taken_by_their_scores_whatever_the_seed(model: Layers) -> None:
    for rule in ("gradient", "spectral"):
        one = select(model, SHAPES, settings(selection=rule), passes())
        assert one == select(model, SHAPES, settings(selection=rule, seed=9), passes())
        assert set(one.scores) == set(SHAPES)
        best = max(SHAPES, key=lambda name: one.scores[name]["score"])
        assert best in one.names


def test_named_layers_are_full_names_or_those_of_all_blocks(model: Layers) -> None:
    def chosen(names: str) -> tuple[str, ...]:
        check_selection(SHAPES, settings(selection=names, full_share=1.0).options)
        return select(model, SHAPES, settings(selection=names, full_share=1.0), []).names

    assert chosen("b.down") == ("b.down",)
    assert chosen("down, a.up") == ("a.up", "a.down", "b.down")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": "gradients"}, "selection=gradients: gradients is not an adapted layer; allowed are gradient, "),
        ({"selection": "a.up,c.up"}, "selection=a.up,c.up: c.up is not an adapted layer"),
        ({"selection": ""}, "selection=: an empty name is not"),
        ({"selection": "up"}, r"selection=up: the layers have 46\.5 % of .* full_share=0\.4 allows"),
        ({"selection": "a.up", "full_share": 0.0}, "selection=a.up: .* full_share=0 allows"),
        ({"full_share": 0.06}, r"full_share=0\.06: the smallest of the 5 adapted layers has 6\.98 %"),
    ],
)
def test_settings_that_do_not_fit_the_layers_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^options={message}"):
        check_selection(SHAPES, {"selection": "gradient", "full_share": 0.4, **options})


def test_a_weight_that_another_layer_shares_is_refused(model: Layers) -> None:
    model.get_submodule("b.up").weight = model.get_submodule("a.up").weight
    with pytest.raises(ProofError, match=r"the weight of a\.up is shared with another layer"):
        select(model, SHAPES, settings(selection="a.up", full_share=1.0), [])
    assert select(model, SHAPES, settings(selection="b.gate", full_share=1.0), []).names == ("b.gate",)
