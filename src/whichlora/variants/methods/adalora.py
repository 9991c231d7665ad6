"""Declares AdaLoRA: updates in SVD form, whose least important ranks are pruned down to a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from whichlora.errors import ProofError
from whichlora.variants.base import POSITIVE, AdapterSettings, Hyperparameters, Variant
from whichlora.variants.witness import Evidence

if TYPE_CHECKING:
    from torch import Tensor

_MNLI_STEPS = 7 * 392_702 / 32
"""Optimiser steps of the paper's MNLI run, used to convert its schedule from steps to shares of a run."""


def initial_rank(rank: int, options: Mapping[str, Any]) -> int:
    """Return the rank before pruning for a final budget of `rank` per module on average."""
    return max(rank + 1, round(float(rank * options["initial_rank_ratio"])))


def _t_final(total: int, options: Mapping[str, Any]) -> int:
    """Return the number of steps at the end of a run of `total` steps that train with the final ranks."""
    return min(round(float(total * options["t_final"])), total - 1)


def _build(settings: AdapterSettings) -> Any:
    from peft import AdaLoraConfig

    total, options = settings.total_steps, settings.options
    t_final = _t_final(total, options)
    common = settings.common()
    del common["r"]
    return AdaLoraConfig(
        init_r=initial_rank(settings.rank, options),
        target_r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        tinit=max(0, min(round(total * options["t_init"]), total - t_final - 1)),
        tfinal=t_final,
        deltaT=max(1, round(total * options["delta_t"])),
        beta1=options["beta"],
        beta2=options["beta"],
        orth_reg_weight=options["orthogonality"],
        total_step=total,
        **common,
    )


def _freeze_ranknum(model: Any) -> None:
    """Freeze the `ranknum` tensors, which PEFT makes trainable when it casts them from bf16."""
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def _orthogonality_penalty(model: Any) -> Tensor:
    """Return the mean Frobenius distance of P P^T and Q^T Q from the identity (equation 4), times `orth_reg_weight`."""
    import torch

    norms = []
    for name, p in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = p @ p.T if "lora_A" in name else p.T @ p
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype)))
    weight: float = model.peft_config["default"].orth_reg_weight
    return weight * torch.stack(norms).mean()


def _allocate_ranks(model: Any, step: int) -> None:
    config, allocator = model.peft_config["default"], model.base_model.rankallocator
    if step == config.total_step - config.tfinal and not allocator.ipt:
        # In a run of one or two steps the first step already has the final ranks.
        allocator.update_ipt(model.base_model.model)
    model.base_model.update_and_allocate(step)


def _allocator_state(model: Any) -> dict[str, Any]:
    allocator = model.base_model.rankallocator
    return {
        "rank_pattern": model.peft_config["default"].rank_pattern,
        **{name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")},
    }


def _restore_allocator(model: Any, state: dict[str, Any]) -> None:
    model.peft_config["default"].rank_pattern = state["rank_pattern"]
    for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
        setattr(model.base_model.rankallocator, name, state[name])


def _check_budget(model: Any, evidence: Evidence) -> None:
    values = [p for n, p in model.named_parameters() if "lora_E" in n]
    total = sum(int((p != 0).sum()) for p in values)
    budget = evidence.settings.rank * len(values)
    if total != budget:
        raise ProofError(f"the final ranks add up to {total}; the budget is {budget}")


def _has_final_ranks(step: int, total: int, options: Mapping[str, Any]) -> bool:
    return step >= total - _t_final(total, options)


ADALORA = Variant(
    name="adalora",
    title="AdaLoRA",
    paper="Zhang et al. 2023, arXiv 2303.10512",
    recommended=Hyperparameters(
        rank=8,
        alpha=16,
        learning_rate=5e-4,
        epochs=7,
        batch_size=32,
        warmup=0.012,
        source="the authors' MNLI script; ranks 12 to 8 from their README",
    ),
    matched_learning_rate=5e-3,
    options={
        "initial_rank_ratio": 1.5,
        "t_init": round(8_000 / _MNLI_STEPS, 4),
        "t_final": round(50_000 / _MNLI_STEPS, 4),
        "delta_t": round(100 / _MNLI_STEPS, 4),
        "beta": 0.85,
        "orthogonality": 0.1,
    },
    option_ranges={
        "initial_rank_ratio": (1.0, 100.0),
        "t_init": (0.0, 1.0),
        "t_final": (0.0, 1.0),
        "delta_t": (0.0, 1.0),
        "beta": (1e-6, 1 - 1e-6),
        "orthogonality": POSITIVE,
    },
    rank_means="mean final rank",
    build=_build,
    expected_parameters=lambda shapes, rank, options: (
        initial_rank(rank, options) * sum(n_in + n_out + 1 for n_in, n_out in shapes.values())
    ),
    witness=_check_budget,
    after_attach=_freeze_ranknum,
    penalty=_orthogonality_penalty,
    after_step=_allocate_ranks,
    method_state=_allocator_state,
    restore_method_state=_restore_allocator,
    may_select=_has_final_ranks,
    rank_limit=lambda shapes: max(1, int(max(min(pair) for pair in shapes.values()) / 1.5)),
)
