"""The weight probe: ranks that each method must have, and updates whose spectrum is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from mlflow.tracking import MlflowClient
from probes import probed, table
from runs import plan_of, run_of

from whichlora.probing import main
from whichlora.probing.weights import overlap, sizes, spectrum


def orthonormal(width: int, columns: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, columns, dtype=torch.float64)).Q


@pytest.mark.parametrize("shape", [(40, 70), (70, 40)])
def test_a_known_spectrum_comes_out(shape: tuple[int, int]) -> None:
    values = torch.tensor([5.0, 2.0, 1.0, 0.01], dtype=torch.float64)
    left, right = orthonormal(shape[0], 4, 0), orthonormal(shape[1], 4, 1)
    update = left * values @ right.T
    found = spectrum(update)
    assert found.rank == 4
    assert found.values[:4].tolist() == pytest.approx(values.tolist())
    kept = found.left.untyped_storage().nbytes() + found.right.untyped_storage().nbytes()
    assert kept == 8 * 4 * sum(shape)  # and not all eigenvectors, which a large model has no room for
    assert overlap(found.left, left) == pytest.approx(1)
    assert overlap(found.right, right) == pytest.approx(1)
    weight = torch.ones(shape, dtype=torch.float64)
    norm = float(values.norm())
    assert sizes(weight, update, found) == pytest.approx(
        {
            "relative_norm": norm / math.sqrt(shape[0] * shape[1]),
            "spectral_norm": 5,
            "stable_rank": norm**2 / 25,
            "rank": 4,
        }
    )


def test_a_layer_that_did_not_change_has_no_rank() -> None:
    zero = torch.zeros(8, 6, dtype=torch.float64)
    found = sizes(torch.ones(8, 6, dtype=torch.float64), zero, spectrum(zero))
    assert (found["rank"], found["relative_norm"]) == (0, 0)
    assert math.isnan(found["stable_rank"])


def test_random_subspaces_overlap_as_chance_says() -> None:
    found = [overlap(orthonormal(64, 8, seed), orthonormal(64, 8, 100 + seed)) for seed in range(50)]
    assert sum(found) / 50 == pytest.approx(8 / 64, abs=0.02)


RANKS = {
    "lora": lambda rank: rank == 4,
    "dora": lambda rank: rank > 8,  # the magnitudes rescale every row
    "adalora": lambda rank: 0 <= rank <= 6,  # its budget is an average over the layers
    "pissa": lambda rank: rank == 8,  # the start is part of the converted adapter
    "vera": lambda rank: 0 < rank <= 4,
}


@pytest.mark.parametrize("variant", RANKS)
def test_every_method_has_its_rank(store: Path, tiny_model: str, variant: str) -> None:
    result = run_of(plan_of(tiny_model, variant=variant, rank=4))
    run = probed("--run_id", result.run_id, "--kind", "weights")
    layers = table(run)
    ranks = layers[layers["measure"].str.startswith("rank/")]
    assert len(ranks) == 3 * 7
    assert set(ranks["layer"]) == {0, 1, 2}
    assert all(map(RANKS[variant], ranks["value"]))
    assert 0 < run.data.metrics["update/mean_relative_norm"] < 10
    mean = layers[layers["measure"] == "rank"]
    assert set(mean["n"]) == {7}
    assert mean["value"].mean() == pytest.approx(run.data.metrics["update/mean_rank"])
    history = MlflowClient().get_metric_history(run.info.run_id, "update/rank")
    assert [point.value for point in history] == pytest.approx(mean.sort_values("layer")["value"].tolist())


def test_full_fine_tuning_changes_all_directions(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, variant="full", learning_rate=1e-3))
    run = probed("--run_id", result.run_id, "--kind", "weights")
    assert run.data.metrics["update/mean_rank"] > 15
    assert run.data.metrics["update/mean_relative_norm"] < 0.2


def test_a_run_points_where_it_points_and_another_elsewhere(store: Path, tiny_model: str) -> None:
    one, two = (run_of(plan_of(tiny_model, rank=4, seed=seed)).run_id for seed in (1, 2))
    itself = probed("--run_id", one, "--kind", "weights", "--against", one)
    assert itself.data.metrics["update/mean_overlap_out"] == pytest.approx(1)
    assert itself.data.metrics["update/mean_overlap_in"] == pytest.approx(1)
    other = probed("--run_id", one, "--kind", "weights", "--against", two)
    assert 4 / 64 < other.data.metrics["update/mean_overlap_in"] < 0.9


def test_runs_of_different_base_models_are_not_compared(
    store: Path, tiny_model: str, byte_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run_of(plan_of(tiny_model, train_size=8)).run_id
    two = run_of(plan_of(byte_model, variant="none")).run_id
    assert main(["--run_id", one, "--kind", "weights", "--against", two]) == 2
    assert f"against={two}: has another base model" in capsys.readouterr().err
