"""Declares FourierFT, WaveFT and SHiRA, which train a few entries of the update's spectrum, or of the update itself."""

from __future__ import annotations

from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules, merged_weight
from whichlora.variants.base import (
    LEARNING_RATES,
    PEFT_COMPARISON,
    POSITIVE,
    QUERY_VALUE,
    AdapterSettings,
    Hyperparameters,
    SearchSpace,
    Variant,
)
from whichlora.variants.methods.lora import lora_parameter_count
from whichlora.variants.witness import Evidence, check_base_unchanged, first_layer


def _fourierft_config(settings: AdapterSettings) -> Any:
    from peft import FourierFTConfig

    common = settings.common()
    return FourierFTConfig(
        n_frequency=common.pop("r"),
        scaling=settings.options["scaling"],
        random_loc_seed=settings.seed,
        **common,
    )


def _check_frequencies(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    name, _, weights = first_layer(model)
    if weights is None:
        return
    spectrum = torch.fft.fft2((weights[1] - weights[0]).double()).abs()
    used = int((spectrum > 1e-3 * spectrum.max()).sum())
    limit = 2 * evidence.settings.rank  # taking the real part of the update mirrors each spectral entry
    if not 0 < used <= limit:
        raise ProofError(f"the update of {name} has {used} frequencies; at most {limit} are allowed")


FOURIERFT = Variant(
    name="fourierft",
    title="FourierFT",
    paper="Gao et al. 2024, arXiv 2405.03003",
    recommended=Hyperparameters(
        rank=1000,
        learning_rate=3e-2,
        epochs=1,
        batch_size=16,
        warmup=0.06,
        target_modules=QUERY_VALUE,
        source="the paper's Table 11 (LLaMA, instruction tuning); modules from the authors' SFT.py",
    ),
    matched_learning_rate=None,
    matched_rank=1000,
    space=SearchSpace(
        rank=(500, 1000, 2000, 5000),
        alpha=(),
        learning_rate=(3e-3, 1e-2, 3e-2, 1e-1, 3e-1),
        target_modules=(QUERY_VALUE, "all-linear"),
    ),
    options={"scaling": 300.0},
    option_ranges={"scaling": POSITIVE},
    rank_means="spectral coefficients per layer",
    build=_fourierft_config,
    expected_parameters=lambda shapes, rank, options: rank * len(shapes),
    witness=_check_frequencies,
    rank_limit=lambda shapes: min(n_in * n_out for n_in, n_out in shapes.values()),
)


def _waveft_config(settings: AdapterSettings) -> Any:
    from peft import WaveFTConfig

    common = settings.common()
    return WaveFTConfig(
        n_frequency=common.pop("r"),
        scaling=settings.options["scaling"],
        wavelet_family="db1",
        random_loc_seed=settings.seed,
        **common,
    )


def _check_wavelets(model: Any, evidence: Evidence) -> None:
    import torch

    check_base_unchanged(model, evidence)
    for name, module in adapter_modules(model):
        if module.waveft_spectrum["default"].numel() != evidence.settings.rank:
            raise ProofError(f"{name} trains {module.waveft_spectrum['default'].numel()} wavelet coefficients")
    weights = merged_weight(module)
    if weights is None or any(width % 2 for width in weights[0].shape):  # PEFT pads odd widths
        return
    change = weights[1] - weights[0]
    haar = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
    squares = change.reshape(change.shape[0] // 2, 2, change.shape[1] // 2, 2)
    coefficients = torch.einsum("ia,jb,xayb->xiyj", haar, haar, squares).abs()
    used = int((coefficients > 1e-3 * coefficients.max()).sum())
    if not 0 < used <= evidence.settings.rank:
        raise ProofError(f"the update of {name} has {used} wavelets; at most {evidence.settings.rank} are allowed")


WAVEFT = Variant(
    name="waveft",
    title="WaveFT",
    paper="Bilican et al. 2025, arXiv 2505.12532",
    recommended=Hyperparameters(
        rank=5000,
        learning_rate=1e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (waveft, n_frequency-5000)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    matched_rank=5000,
    space=SearchSpace(
        rank=(1000, 2592, 5000, 10000),
        alpha=(),
        learning_rate=(*LEARNING_RATES[2:], 1e-2, 2e-2),
        target_modules=(QUERY_VALUE, "all-linear"),
    ),
    options={"scaling": 25.0},
    option_ranges={"scaling": POSITIVE},
    rank_means="wavelet coefficients per layer",
    build=_waveft_config,
    expected_parameters=lambda shapes, rank, options: rank * len(shapes),
    witness=_check_wavelets,
    rank_limit=lambda shapes: min(n_in * n_out for n_in, n_out in shapes.values()),
)


def _shira_config(settings: AdapterSettings) -> Any:
    from peft import ShiraConfig

    return ShiraConfig(mask_type="random", random_seed=settings.seed, **settings.common())


def _check_entries(model: Any, evidence: Evidence) -> None:
    check_base_unchanged(model, evidence)
    for name, module in adapter_modules(model):
        entries = evidence.settings.rank * (module.in_features + module.out_features)
        if module.shira_weight["default"].numel() != entries:
            raise ProofError(
                f"{module.shira_weight['default'].numel()} entries of {name} are trained instead of {entries}"
            )
    weights = merged_weight(module)
    if weights is None:
        return
    changed = int((weights[0] != weights[1]).sum())
    if not 0 < changed <= entries:
        raise ProofError(f"{changed} entries of {name} changed; {entries} are trainable")


SHIRA = Variant(
    name="shira",
    title="SHiRA",
    paper="Bhardwaj et al. 2024, arXiv 2406.13175",
    recommended=Hyperparameters(
        rank=32,
        learning_rate=3e-4,
        target_modules=QUERY_VALUE,
        source="PEFT's method_comparison/MetaMathQA (shira, lr_0.0003, random mask)",
        **PEFT_COMPARISON,
    ),
    matched_learning_rate=None,
    space=SearchSpace(alpha=(), target_modules=(QUERY_VALUE, "all-linear")),
    rank_means="as many trained entries per layer as LoRA of this rank has parameters",
    build=_shira_config,
    expected_parameters=lora_parameter_count,
    witness=_check_entries,
    rank_limit=lambda shapes: min(n_in * n_out // (n_in + n_out) for n_in, n_out in shapes.values()),
)
