"""CKA: what it must be invariant to, and what it must detect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import probed, table
from runs import plan_of, run_of

from whichlora.evaluation import translation_similarity
from whichlora.probing.alignment.cka import cka


def draw(seed: int, count: int = 60, width: int = 200) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, width))


def test_rotation_and_length_do_not_matter() -> None:
    states = draw(0)
    rotation = np.linalg.qr(draw(1, 200, 200))[0]
    lengths = np.exp(draw(2, 60, 1))
    assert cka(states, states @ rotation * lengths) == pytest.approx(1)


def test_unrelated_states_are_dissimilar_even_if_there_are_few_of_them() -> None:
    found = [cka(draw(2 * seed), draw(2 * seed + 1)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(0, abs=0.02)


def test_it_falls_with_noise() -> None:
    low_rank = draw(0, 60, 5) @ draw(1, 5, 200)
    found = [cka(low_rank, low_rank + noise * draw(2)) for noise in (0.0, 0.5, 2.0, 8.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1)
    assert found[-1] < 0.7


def by_inner_products(one: Any, other: Any) -> float:
    """CKA from the inner products of all pairs of texts, as in Song et al."""
    kernels = []
    for states in (one, other):
        unit = states / np.linalg.norm(states, axis=1, keepdims=True)
        kernels.append(unit @ unit.T * (1 - np.eye(len(unit))))

    def hsic(k: Any, l: Any) -> Any:  # noqa: E741
        n, ones = len(k), np.ones(len(k))
        products = np.trace(k @ l) + (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
        return (products - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))

    k, l = kernels  # noqa: E741
    return float(hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l)))


@pytest.mark.parametrize("block", [4, 7, 1024])
@pytest.mark.parametrize(("count", "widths", "shift"), [(60, (20, 200), 0), (60, (20, 20), 3), (5, (6, 4), 1)])
def test_blocks_of_texts_give_the_same_as_all_inner_products(
    count: int, widths: tuple[int, int], shift: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translation_similarity, "BLOCK", block)
    one = draw(0, count, widths[0]) + shift
    other = one @ draw(1, widths[0], widths[1]) + draw(2, count, widths[1])
    assert cka(one, other) == pytest.approx(by_inner_products(one, other), abs=1e-9)


def test_nearly_equal_states_are_distinguished() -> None:
    """At cosines of 1 - 1e-8, where sums of all inner products lose the digits that count."""
    one, other = draw(0), draw(1)
    expected = cka(one, one + other)
    assert cka(one + 1e4, one + other + 1e4) == pytest.approx(expected, abs=0.05)


def test_similarity_to_constant_states_is_undefined() -> None:
    assert np.isnan(cka(draw(0), np.ones((60, 3))))


@pytest.mark.slow
def test_a_run_is_compared_with_its_base_and_with_itself(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, learning_rate=0.05))
    few = ("--run_id", result.run_id, "--kind", "alignment", "--items", "20")
    for against, alike in (("base", False), (result.run_id, True)):
        run = probed(*few, "--against", against)
        layers = table(run).query("measure == 'cka/english'").set_index("layer")["value"]
        assert layers[-1] == pytest.approx(1)  # no adapter comes before the first block
        assert (layers.to_numpy() == pytest.approx(1)) is alike
