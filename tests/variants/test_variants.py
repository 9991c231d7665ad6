"""The checks of `whichlora.testing` for every variant of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest
from methods import ADAPTERS, LATEST, cases
from runs import plan_of

from whichlora.errors import OptionError
from whichlora.testing import save_tiny_model
from whichlora.testing.variant_case import (
    check_arm,
    check_chosen_layers,
    check_declaration,
    check_layer_forms_and_merging,
    check_nf4,
)
from whichlora.testing.variant_runs import check_training
from whichlora.variants import CATALOGUE, WIDER

VARIANTS = list(CATALOGUE)
CASES = [
    pytest.param(
        variant,
        task,
        marks=[pytest.mark.slow] * (variant in LATEST or (CATALOGUE[variant] in WIDER and task == "atlas-qa")),
    )
    for variant in VARIANTS
    for task in ("atlas-nli", "atlas-qa")
]
FEW = {"hybrid-lora": {"full_share": 0.5}}
"""Settings where so few layers have an adapter that the default share of them is none."""
NF4 = [name for name in ADAPTERS if CATALOGUE[name].quantizable]


@pytest.mark.parametrize(("variant", "task"), CASES)
def test_a_variant_trains_and_reloads_to_its_logged_predictions(
    store: Path, tiny_model: str, variant: str, task: str
) -> None:
    # At the others' rate FourierFT's states grow so large that rounding moves a probability.
    options = {"learning_rate": 0.002} if variant == "fourierft" else {}
    check_training(variant, tiny_model, store, task=task, **options)


@pytest.mark.parametrize("variant", ADAPTERS)
def test_an_adapter_touches_only_the_chosen_layers(tmp_path: Path, tiny_model: str, variant: str) -> None:
    check_chosen_layers(variant, tiny_model, tmp_path, FEW.get(variant))


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with as many decoder blocks as the papers' and nothing else of theirs."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return save_tiny_model(folder, num_hidden_layers=32, hidden_size=16, intermediate_size=16)


@pytest.mark.parametrize("variant", cases(ADAPTERS))
def test_layers_are_counted_from_block_0_trained_alone_and_merged(deep_model: Path, variant: str) -> None:
    check_layer_forms_and_merging(variant, deep_model, FEW.get(variant))


@pytest.mark.parametrize("variant", ADAPTERS)
@pytest.mark.parametrize("arm", ["recommended", "matched"])
def test_every_arm_of_an_adapter_has_values_and_a_source(variant: str, arm: str) -> None:
    check_arm(variant, arm)
    assert "arXiv" in CATALOGUE[variant].paper or "OpenReview" in CATALOGUE[variant].paper


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_declared_in_full(variant: str) -> None:
    check_declaration(variant)


def test_a_rank_beyond_the_width_is_refused_with_the_limit(tiny_model: str) -> None:
    with pytest.raises(OptionError, match="rank=17: must be at most 16"):
        plan_of(tiny_model, variant="pissa", rank=17)


@pytest.mark.parametrize("variant", cases(NF4))
def test_a_variant_that_says_so_trains_on_an_nf4_base(tiny_model: str, variant: str) -> None:
    check_nf4(variant, tiny_model)
