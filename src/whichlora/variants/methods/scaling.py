"""Declares (IA)3 and RoAd: vectors that scale the activations of a layer, or scale and rotate pairs of them."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.variants.base import (
    HIGH_LEARNING_RATES,
    PEFT_COMPARISON,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
)
from whichlora.variants.witness import Evidence, check_base_unchanged, check_changed, first_layer

_FEEDFORWARD = ("down_proj", "fc2", "dense_4h_to_h")
"""Second layers of feed-forward blocks: the paper scales the inputs of these layers and the outputs of all others."""


def _ia3_config(settings: AdapterSettings) -> Any:
    from peft import IA3Config

    second = [name for name in settings.target_modules if name.rpartition(".")[2] in settings.options["feedforward"]]
    return IA3Config(feedforward_modules=second, **settings.common())


def _check_vectors(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "ia3_l")
    for name, module in adapter_modules(model):
        second = name.rpartition(".")[2] in evidence.settings.options["feedforward"]
        expected = (1, module.in_features) if second else (module.out_features, 1)
        if tuple(module.ia3_l["default"].shape) != expected:
            raise ProofError(
                f"the vector of {name} has shape {tuple(module.ia3_l['default'].shape)} instead of {expected}"
            )
    weights = merged_weight(module)
    if weights is not None and not weights[1].allclose(weights[0] * module.ia3_l["default"].cpu().float()):
        raise ProofError(f"the weight of {name} is not the base weight scaled by one vector")


IA3 = Variant(
    name="ia3",
    title="(IA)3",
    paper="Liu et al. 2022, arXiv 2205.05638",
    recommended=Hyperparameters(
        learning_rate=1e-3,
        target_modules=("k_proj", "v_proj", "down_proj"),
        source="PEFT's method_comparison/MetaMathQA (ia3, lr_0.001); modules as in the paper",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=None,
    space=SearchSpace(
        rank=(),
        alpha=(),
        learning_rate=HIGH_LEARNING_RATES,
        target_modules=(("k_proj", "v_proj", "down_proj"), "all-linear"),
    ),
    options={"feedforward": list(_FEEDFORWARD)},
    build=_ia3_config,
    expected_parameters=lambda shapes, rank, options: sum(
        n_in if name.rpartition(".")[2] in options["feedforward"] else n_out for name, (n_in, n_out) in shapes.items()
    ),
    witness=_check_vectors,
    changes_input=True,
)


def _road_config(settings: AdapterSettings) -> Any:
    from peft import RoadConfig

    # PEFT pairs a group's first half with its second; groups of 2 pair neighbours, as in the paper, for any even width.
    return RoadConfig(variant="road_1", group_size=2, **settings.common())


def _check_pairs(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    check_changed(model, evidence, "road_theta")
    check_changed(model, evidence, "road_alpha")
    name, module, weights = first_layer(model)
    if weights is None:
        return
    # Rotating a pair of rows preserves the sum of their squares; scaling multiplies it by the square of the scale.
    before, after = (w.square().sum(1).reshape(-1, 2).sum(1) for w in weights)
    if not after.allclose(before * module.road_alpha["default"].detach().cpu().float().square(), rtol=1e-3):
        raise ProofError(f"pairs of outputs of {name} are not rotated and scaled together")


ROAD = Variant(
    name="road",
    title="RoAd",
    paper="Liao and Monz 2024, arXiv 2409.00119",
    recommended=Hyperparameters(
        learning_rate=3e-3,
        epochs=6,
        batch_size=32,
        warmup=0.1,
        source="the paper's Table C.5 (LLaMA on commonsense reasoning), RoAd_1",
    ),
    matched_learning_rate=None,
    matched_rank=None,
    space=SearchSpace(rank=(), alpha=(), learning_rate=HIGH_LEARNING_RATES),
    build=_road_config,
    expected_parameters=lambda shapes, rank, options: sum(n_out for _, n_out in shapes.values()),
    witness=_check_pairs,
)
