"""Declares Lily, Uni-LoRA and VB-LoRA, whose layers share the numbers that their low-rank factors are made of."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import (
    HIGH_LEARNING_RATES,
    PEFT_COMPARISON,
    POSITIVE,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Shapes,
    Variant,
    common_divisor,
)
from whichlora.variants.optimizers import check_two_rates, two_rates
from whichlora.variants.witness import Evidence, check_base_unchanged, check_changed, first_layer


def _check_one_tensor(model: Any, attribute: str) -> Any:
    """Return the trained tensor that all adapted modules have under this name.

    Raises:
        ProofError: there are several.
    """
    tensors = {id(tensor): tensor for _, m in adapter_modules(model) for tensor in [getattr(m, attribute)["default"]]}
    if len(tensors) != 1:
        raise ProofError(f"{attribute} must be one tensor shared by all modules; there are {len(tensors)}")
    return next(iter(tensors.values()))


def _check_factors(model: Any, factors: Any) -> None:
    """Check that the update of one layer is the product of its factors, (A, B) by `factors` from the module.

    Raises:
        ProofError: it is not, or there is none.
    """
    name, module, weights = first_layer(model)
    if weights is None:
        return
    a, b = (factor.detach().cpu().float() for factor in factors(module))
    change = weights[1] - weights[0]
    if not change.any() or not change.allclose(b @ a, atol=1e-5 * float(weights[0].abs().max())):
        raise ProofError(f"the update of {name} is not the product of its factors")


def _lily_config(settings: AdapterSettings) -> Any:
    from peft import LilyConfig

    # PEFT shares factors between layers that match the same entry of `target_modules`, so these are short names, and
    # all other layers are excluded.
    common = settings.common() | {"target_modules": sorted(set(map(_short, settings.target_modules)))}
    adapted = "|".join(map(re.escape, settings.target_modules))
    return LilyConfig(
        stride_A=settings.options["stride"],
        num_B=settings.options["experts"],
        scaling=settings.options["scaling"],
        exclude_modules=rf"(?!(?:{adapted})$).*",
        **common,
    )


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _lily_factors(shapes: Shapes, options: Mapping[str, Any]) -> dict[tuple[str, int, int], int]:
    """Return the number of matrices A by (short name, in, out) of the layers that share the experts B."""
    layers = Counter((_short(name), *pair) for name, pair in shapes.items())
    return {key: math.ceil(count / options["stride"]) for key, count in layers.items()}


def _lily_parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    experts: int = options["experts"]
    factors = sum(
        rank * (count * n_in + experts * n_out) for (_, n_in, n_out), count in _lily_factors(shapes, options).items()
    )
    return factors + len(shapes) * rank * experts


def _check_interconnection(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    modules = dict(adapter_modules(model))
    shapes = {name: (module.in_features, module.out_features) for name, module in modules.items()}
    expected = _lily_factors(shapes, evidence.settings.options)
    for attribute, count in (("lily_A", sum(expected.values())), ("lily_B", len(expected))):
        found = len({id(getattr(module, attribute)["default"].weight) for module in modules.values()})
        if found != count:
            raise ProofError(f"the layers have {found} matrices {attribute}; sharing them leaves {count}")


LILY = Variant(
    name="lily",
    title="Lily",
    paper="Zhong et al. 2024, arXiv 2407.09946",
    recommended=Hyperparameters(
        rank=896,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (lily, rank896-a2-b2-s2.0)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=96,  # on the packaged model about as many parameters as LoRA of rank 8
    space=SearchSpace(
        rank=(32, 96, 256),
        alpha=(),
        target_modules=(QUERY_VALUE, "all-linear"),
        options={"stride": (4, 14), "scaling": (1.0, 2.0, 8.0)},
    ),
    options={"stride": 14, "experts": 2, "scaling": 2.0},
    option_ranges={"stride": (1, 65536), "experts": (2, 1024), "scaling": POSITIVE},
    rank_means="rank of the factors, which layers share",
    build=_lily_config,
    expected_parameters=_lily_parameters,
    witness=_check_interconnection,
    mergeable=False,
    reads_batch=True,
)


def _uni_lora_config(settings: AdapterSettings) -> Any:
    from peft import UniLoraConfig

    # NumPy draws the positions, the same on every platform, so they are not saved: they outweigh LoRA's factors.
    return UniLoraConfig(
        theta_d_length=settings.options["vector_length"],
        unilora_dropout=settings.dropout,
        proj_seed=settings.seed,
        **settings.common(),
    )


def _uni_lora_factors(module: Any) -> Any:
    vector = module.unilora_theta_d["default"].cpu()
    for side in ("A", "B"):
        positions, scales = (
            getattr(module, f"unilora_{kind}_{side}")["default"].cpu() for kind in ("indices", "scales")
        )
        yield vector[positions] * scales


def _check_one_vector(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    length = _check_one_tensor(model, "unilora_theta_d").numel()
    if length != evidence.settings.options["vector_length"]:
        raise ProofError(f"the shared vector has {length} entries")
    _check_factors(model, _uni_lora_factors)


UNI_LORA = Variant(
    name="uni-lora",
    title="Uni-LoRA",
    paper="Li et al. 2025, arXiv 2506.00799",
    recommended=Hyperparameters(
        rank=4,
        learning_rate=2e-3,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (unilora, r4-td131072-lr0.002), rank as in the paper's Table 9",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(
        alpha=(),
        learning_rate=HIGH_LEARNING_RATES,
        target_modules=(QUERY_VALUE, "all-linear"),
        options={"vector_length": (32768, 131072, 524288)},
    ),
    options={"vector_length": 131072},
    option_ranges={"vector_length": (1, 1 << 31)},
    rank_means="rank of the factors, whose entries are drawn from one trained vector; more is not more parameters",
    build=_uni_lora_config,
    expected_parameters=lambda shapes, rank, options: int(options["vector_length"]),
    witness=_check_one_vector,
)


def _sub_vector(shapes: Shapes, options: Mapping[str, Any]) -> int:
    """Return the longest length up to `vector_length` that divides all widths."""
    whole = common_divisor(shapes)
    return max(size for size in range(1, min(whole, options["vector_length"]) + 1) if whole % size == 0)


def _vb_lora_config(settings: AdapterSettings) -> Any:
    from peft import VBLoRAConfig

    adapted = {name: settings.shapes[name] for name in settings.target_modules}
    return VBLoRAConfig(
        num_vectors=settings.options["vectors"],
        vector_length=_sub_vector(adapted, settings.options),
        vblora_dropout=settings.dropout,
        **settings.common(),
    )


def _vb_lora_parameters(shapes: Shapes, rank: int, options: Mapping[str, Any]) -> int:
    length, vectors = _sub_vector(shapes, options), int(options["vectors"])
    return vectors * (length + sum(rank * (n_in + n_out) // length for n_in, n_out in shapes.values()))


def _vb_lora_factors(module: Any) -> Any:
    bank = module.vblora_vector_bank["default"].float()
    for side in ("A", "B"):
        top = getattr(module, f"vblora_logits_{side}")["default"].float().topk(module.topk["default"], dim=-1)
        mixed = (top.values.softmax(-1)[..., None] * bank[top.indices]).sum(-2)  # (rows, columns, length)
        yield mixed.flatten(1) if side == "A" else mixed.transpose(1, 2).flatten(0, 1)


def _check_bank(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    _check_one_tensor(model, "vblora_vector_bank")
    check_changed(model, evidence, "vblora_logits_A")
    check_two_rates(evidence, marker="vblora_vector_bank", ratio=evidence.settings.options["bank_rate_ratio"])
    _check_factors(model, _vb_lora_factors)


VB_LORA = Variant(
    name="vb-lora",
    title="VB-LoRA",
    paper="Li et al. 2024, arXiv 2405.15179",
    recommended=Hyperparameters(
        rank=4,
        learning_rate=1e-2,
        target_modules=QUERY_VALUE,
        source=(
            "PEFT's method_comparison/MetaMathQA (vblora, default); the rates of the logits and of the bank from "
            "PEFT's documentation of VB-LoRA"
        ),
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(
        alpha=(),
        learning_rate=HIGH_LEARNING_RATES,
        target_modules=(QUERY_VALUE, "all-linear"),
        options={"vectors": (256, 1024)},
    ),
    options={"vectors": 256, "vector_length": 256, "bank_rate_ratio": 0.1},
    option_ranges={"vectors": (2, 1 << 20), "vector_length": (1, 65536), "bank_rate_ratio": POSITIVE},
    rank_means="rank of the factors, which are made of vectors from one trained bank",
    build=_vb_lora_config,
    expected_parameters=_vb_lora_parameters,
    optimizer=lambda model, rate, decay, options: two_rates(
        model, rate, decay, marker="vblora_vector_bank", ratio=options["bank_rate_ratio"]
    ),
    witness=_check_bank,
)
