"""Declares LoRA, rsLoRA, DoRA and PiSSA, which PEFT builds from one class with different options."""

from __future__ import annotations

import math
from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import (
    LLAMA_ATTENTION_MLP,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
    lora_parameters,
    narrowest,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, check_changed, weight_digest


def lora_config(settings: AdapterSettings, **extra: Any) -> Any:
    """Return a `LoraConfig` with the common settings and the options specific to a variant."""
    from peft import LoraConfig

    return LoraConfig(lora_alpha=settings.alpha, lora_dropout=settings.dropout, **settings.common(), **extra)


def check_scaling(model: Any, evidence: Evidence, *, exponent: float) -> None:
    """Check that the base is unchanged and that the update is scaled by alpha / rank ** exponent.

    Raises:
        ProofError: the base changed, or a module has another scaling factor.
    """
    check_base_unchanged(model, evidence)
    expected = evidence.settings.alpha / evidence.settings.rank**exponent
    for name, module in adapter_modules(model):
        if not math.isclose(module.scaling["default"], expected):
            raise ProofError(f"{name} scales its update by {module.scaling['default']} instead of {expected}")


def _check_magnitudes(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "lora_magnitude_vector")


def check_residual(model: Any, evidence: Evidence) -> None:
    """Check that the adapter's initial product was subtracted from the base weights.

    Raises:
        ProofError: the base weight of a module is unchanged.
    """
    unchanged = [
        n for n, module in adapter_modules(model) if weight_digest(module.base_layer.weight) == evidence.base[n]
    ]
    if unchanged:
        raise ProofError(
            f"the adapter's initial product was not subtracted from the base in {len(unchanged)} modules, "
            f"the first is {unchanged[0]}"
        )


def lora_parameter_count(shapes: Any, rank: int, options: Any) -> int:
    """Return the number of parameters of LoRA's two matrices over all layers; `options` are ignored."""
    return lora_parameters(shapes.values(), rank)


LORA = Variant(
    name="lora",
    title="LoRA",
    paper="Hu et al. 2021, arXiv 2106.09685",
    recommended=Hyperparameters(
        rank=4,
        alpha=32,
        dropout=0.1,
        learning_rate=2e-4,
        epochs=5,
        batch_size=8,
        warmup=0.02,
        weight_decay=0.01,
        target_modules=QUERY_VALUE,
        source="the paper's Table 11 (GPT-2 on E2E); its 500 warm-up steps as a share of the run",
    ),
    recommended_for={
        "align-words": Hyperparameters(
            rank=16,
            alpha=32,
            dropout=0.05,
            learning_rate=2e-4,
            epochs=5,
            batch_size=8,
            warmup=0.128,
            target_modules=QUERY_VALUE,
            source="arXiv 2506.15415; its 50 warm-up steps as a share of its 390",
        )
    },
    matched_learning_rate=2e-3,
    space=SearchSpace(target_modules=(QUERY_VALUE, "all-linear")),
    build=lora_config,
    expected_parameters=lora_parameter_count,
    witness=lambda model, evidence: check_scaling(model, evidence, exponent=1.0),
)

RSLORA = Variant(
    name="rslora",
    title="rsLoRA",
    paper="Kalajdzievski 2023, arXiv 2312.03732",
    recommended=Hyperparameters(
        rank=32,
        alpha=16,
        learning_rate=5e-5,
        epochs=1,
        batch_size=32,
        warmup=0.0,
        source="the paper's section 4 (Llama 2 on OpenOrca), the middle of its ranks 4 to 2048",
    ),
    matched_learning_rate=2e-3,
    build=lambda settings: lora_config(settings, use_rslora=True),
    expected_parameters=lora_parameter_count,
    witness=lambda model, evidence: check_scaling(model, evidence, exponent=0.5),
)

DORA = Variant(
    name="dora",
    title="DoRA",
    paper="Liu et al. 2024, arXiv 2402.09353",
    recommended=Hyperparameters(
        rank=16,
        alpha=32,
        dropout=0.05,
        learning_rate=1e-4,
        epochs=3,
        batch_size=16,
        warmup=0.003,
        target_modules=LLAMA_ATTENTION_MLP,
        source="the authors' LLaMA3-8B commonsense script at half rank; its 100 warm-up steps as a share of the run",
    ),
    matched_learning_rate=2e-3,
    space=SearchSpace(target_modules=(LLAMA_ATTENTION_MLP, "all-linear")),
    build=lambda settings: lora_config(settings, use_dora=True),
    expected_parameters=lambda shapes, rank, options: (
        lora_parameters(shapes.values(), rank) + sum(n_out for _, n_out in shapes.values())
    ),
    witness=_check_magnitudes,
)

PISSA = Variant(
    name="pissa",
    title="PiSSA",
    paper="Meng et al. 2024, arXiv 2404.02948",
    recommended=Hyperparameters(
        rank=128,
        alpha=128,
        learning_rate=2e-5,
        epochs=1,
        batch_size=128,
        warmup=0.03,
        scheduler="cosine",
        source="the paper's section 5 and the authors' script",
    ),
    matched_learning_rate=5e-4,
    space=SearchSpace(epochs=(1, 3)),
    options={"svd_iterations": 16},
    option_ranges={"svd_iterations": (1, 1000)},
    build=lambda settings: lora_config(settings, init_lora_weights=f"pissa_niter_{settings.options['svd_iterations']}"),
    expected_parameters=lora_parameter_count,
    witness=check_residual,
    changes_base=True,
    converts_base_change=True,
    quantizable=False,
    rank_limit=narrowest,
)
