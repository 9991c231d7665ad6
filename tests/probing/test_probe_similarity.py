"""CKA: what it must not see, and what it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import probed, table
from runs import plan_of, run_of

from whichlora.probing.similarity import cka


def draw(seed: int, count: int = 60, width: int = 200) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, width))


def test_rotation_and_length_do_not_matter() -> None:
    states = draw(0)
    rotation = np.linalg.qr(draw(1, 200, 200))[0]
    lengths = np.exp(draw(2, 60, 1))
    assert cka(states, states @ rotation * lengths) == pytest.approx(1)


def test_states_that_have_nothing_in_common_are_unlike_though_there_are_few_of_them() -> None:
    found = [cka(draw(2 * seed), draw(2 * seed + 1)) for seed in range(30)]
    assert np.mean(found) == pytest.approx(0, abs=0.02)


def test_it_falls_with_noise() -> None:
    low_rank = draw(0, 60, 5) @ draw(1, 5, 200)
    found = [cka(low_rank, low_rank + noise * draw(2)) for noise in (0.0, 0.5, 2.0, 8.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1)
    assert found[-1] < 0.7


def test_a_run_is_compared_with_its_base_and_with_itself(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, learning_rate=0.05))
    few = ("--run_id", result.run_id, "--kind", "alignment", "--items", "20")
    for against, alike in (("base", False), (result.run_id, True)):
        run = probed(*few, "--against", against)
        layers = table(run).query("measure == 'cka/english'").set_index("layer")["value"]
        assert layers[-1] == pytest.approx(1)  # no adapter comes before the first block
        assert (layers.to_numpy() == pytest.approx(1)) is alike
