"""Numbers of trainable parameters on models with real shapes but no weights: by formula and as built by PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods import ADAPTERS, cases
from shapes import config_of

from whichlora.config.hyperparameters import adapted_shapes, resolve_modules
from whichlora.models.loading import shape_of
from whichlora.testing.variant_case import check_parameter_count
from whichlora.variants import CATALOGUE, AdapterSettings
from whichlora.variants.methods.adalora import initial_rank

ATTENTION_MLP = "q_proj,k_proj,v_proj,up_proj,down_proj"
NOT_ON_META = ("pissa", "olora", "shira", "frod", "psoft", "uni-lora", "lora-ga", "corda")
"""They read the weights, or count positions; every run checks that their formula matches the built adapter."""


def on_meta(config: Any) -> Any:
    """Return the model without weights."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def by_formula(model: Any, variant: str, rank: int, modules: str, **options: Any) -> tuple[int, dict[str, Any]]:
    """Return the count and the adapted shapes."""
    shape = shape_of(model)
    shapes = adapted_shapes(shape, resolve_modules(modules, shape, model="meta"), tuple(range(shape.n_layers)))
    declared = CATALOGUE[variant]
    assert declared.expected_parameters is not None
    return declared.expected_parameters(shapes, rank, {**declared.options, **options}), shapes


def as_peft_builds_it(model: Any, variant: str, rank: int, shapes: dict[str, Any], **options: Any) -> int:
    from peft import get_peft_model

    declared = CATALOGUE[variant]
    settings = AdapterSettings(
        rank=rank,
        alpha=declared.matched_alpha if declared.has_alpha else None,
        dropout=0.0,
        target_modules=tuple(shapes),
        options={**declared.options, **options},
        seed=0,
        total_steps=100,
    )
    assert declared.build is not None
    with torch.device("meta"):
        adapted = get_peft_model(model, declared.build(settings))
    return sum(p.numel() for p in adapted.parameters() if p.requires_grad)


PAPER = [
    ("lora", 8, "all-linear", {}, 20_971_520),
    ("rslora", 8, "all-linear", {}, 20_971_520),
    ("pissa", 8, "all-linear", {}, 20_971_520),
    ("dora", 16, ATTENTION_MLP, {}, 29_097_984),
    ("dora", 8, "all-linear", {}, 22_347_776),
    # The final budget is rank 7, the initial rank is 8: the initial rank determines the parameters.
    ("adalora", 7, "all-linear", {"initial_rank_ratio": 8 / 7}, 20_973_312),
    ("vera", 256, "all-linear", {}, 1_433_600),
    ("vera", 1024, "all-linear", {}, 1_605_632),
]


@pytest.mark.parametrize(("variant", "rank", "modules", "options", "expected"), PAPER)
def test_parameters_are_those_of_the_paper_s_table_1(
    variant: str, rank: int, modules: str, options: dict[str, Any], expected: int
) -> None:
    model = on_meta(config_of("llama-3.1-8b"))
    count, shapes = by_formula(model, variant, rank, modules, **options)
    assert count == expected
    if variant not in NOT_ON_META:
        assert as_peft_builds_it(model, variant, rank, shapes, **options) == expected


@pytest.mark.parametrize(("name", "expected"), [("llama-3.2-3b", 12_156_928), ("qwen3-8b", 21_823_488)])
def test_lora_on_other_models(name: str, expected: int) -> None:
    model = on_meta(config_of(name))
    count, shapes = by_formula(model, "lora", 8, "all-linear")
    assert count == as_peft_builds_it(model, "lora", 8, shapes) == expected


@pytest.mark.parametrize("variant", cases([name for name in ADAPTERS if name not in NOT_ON_META]))
def test_the_formula_matches_peft_on_real_widths(variant: str) -> None:
    config = config_of("llama-3.1-8b")
    config.num_hidden_layers = 2
    check_parameter_count(variant, config)


def test_adalora_starts_above_its_budget() -> None:
    assert initial_rank(8, CATALOGUE["adalora"].options) == 12
