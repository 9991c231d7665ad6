"""The weight probe: the rank that each method must have, and updates with a known spectrum."""

from __future__ import annotations

import math
import re
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow.tracking import MlflowClient
from probes import probed, table
from runs import plan_of, run_of
from safetensors.torch import load_file

from whichlora.probing import main
from whichlora.probing.weights import chance_overlap, overlap, sizes, spectrum


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
    stored = found.left.untyped_storage().nbytes() + found.right.untyped_storage().nbytes()
    assert stored == 8 * 4 * sum(shape)  # not all eigenvectors, which would not fit in memory for a large model
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
    for columns in (8, 3):
        pairs = [(orthonormal(64, 8, seed), orthonormal(64, columns, 100 + seed)) for seed in range(50)]
        assert {chance_overlap(*pair) for pair in pairs} == {8 / 64}
        assert sum(overlap(*pair) for pair in pairs) / 50 == pytest.approx(8 / 64, abs=0.02)
    assert math.isnan(chance_overlap(orthonormal(64, 8, 0), torch.empty(64, 0)))


def adapter_of(run_id: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return the tensors of an adapter by layer and module (`0 q_proj`) and by parameter name (`lora_A.weight`)."""
    path = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter/adapter_model.safetensors")
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(path).items():
        match = re.search(r"layers\.(\d+)\.\w+\.(\w+)\.(.+)$", name)
        if match:
            found.setdefault(f"{match[1]} {match[2]}", {})[match[3]] = tensor
    return found


def rank_of_vera(tensors: dict[str, torch.Tensor]) -> int:
    """Return the rank of the shared matrices: no entry of the vectors is zero, so none of it is lost."""
    assert all(bool((tensors[f"vera_lambda_{side}"] != 0).all()) for side in "bd")
    return len(tensors["vera_lambda_d"])


RANKS = {
    "lora": lambda tensors: len(tensors["lora_A.weight"]),
    "dora": lambda tensors: min(len(tensors["lora_B.weight"]), tensors["lora_A.weight"].shape[1]),  # rescales every row
    "adalora": lambda tensors: int((tensors["lora_E"] != 0).sum()),  # what its budget left of each layer
    "pissa": lambda tensors: len(tensors["lora_A.weight"]),  # of the converted adapter, which includes the initial one
    "vera": rank_of_vera,
}
STORED = {"lora": 4, "dora": 4, "pissa": 8}


@pytest.mark.parametrize(
    "variant", [v if v in ("lora", "vera") else pytest.param(v, marks=pytest.mark.slow) for v in RANKS]
)
def test_every_method_has_its_rank(store: Path, tiny_model: str, variant: str) -> None:
    result = run_of(plan_of(tiny_model, variant=variant, rank=4))
    run = probed("--run_id", result.run_id, "--kind", "weights")
    layers = table(run)
    ranks = layers[layers["measure"].str.startswith("rank/")]
    adapter = adapter_of(result.run_id)
    if variant in STORED:
        assert {len(tensors["lora_A.weight"]) for tensors in adapter.values()} == {STORED[variant]}
    expected = {site: RANKS[variant](tensors) for site, tensors in adapter.items()}
    assert len(expected) == 3 * 7
    found = zip(ranks["layer"], ranks["measure"], ranks["value"], strict=True)
    assert {f"{layer} {measure.removeprefix('rank/')}": value for layer, measure, value in found} == expected
    if variant in ("adalora", "vera"):
        assert sum(expected.values()) == 4 * 3 * 7  # which AdaLoRA redistributes over the layers
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


@pytest.mark.slow
def test_a_run_overlaps_fully_with_itself_and_partly_with_another(store: Path, tiny_model: str) -> None:
    one, two = (run_of(plan_of(tiny_model, rank=4, seed=seed)).run_id for seed in (1, 2))
    itself = probed("--run_id", one, "--kind", "weights", "--against", one)
    assert itself.data.metrics["update/mean_overlap_out"] == pytest.approx(1)
    assert itself.data.metrics["update/mean_overlap_in"] == pytest.approx(1)
    other = probed("--run_id", one[:8], "--kind", "weights", "--against", two[:8])
    assert 4 / 64 < other.data.metrics["update/mean_overlap_in"] < 0.9
    assert other.data.params["directions"] == "8"
    layers = table(other).set_index(["measure", "layer"])["value"]
    # Four directions each: of 32 into most modules and of 64 into one, of 64 out of two and of 16 out of two.
    assert layers["chance_in/q_proj", 0] == layers["chance_out/down_proj", 2] == 4 / 32
    assert layers["chance_in/down_proj", 1] == layers["chance_out/up_proj", 1] == 4 / 64
    assert layers["chance_out/k_proj", 1] == 4 / 16
    assert other.data.metrics["update/mean_chance_in"] == pytest.approx((6 * 4 / 32 + 4 / 64) / 7)
    figure = mlflow.artifacts.load_text(f"runs:/{other.info.run_id}/figures/weights.svg")
    assert "by chance 0.0625 to 0.25" in figure
    assert "by chance 0.0625 to 0.125" in figure


def test_runs_of_different_base_models_are_not_compared(
    store: Path, tiny_model: str, byte_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run_of(plan_of(tiny_model, train_size=8)).run_id
    two = run_of(plan_of(byte_model, variant="none")).run_id
    assert main(["--run_id", one, "--kind", "weights", "--against", two]) == 2
    assert f"against={two}: has another base model" in capsys.readouterr().err
