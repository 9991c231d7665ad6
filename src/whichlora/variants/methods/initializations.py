"""Declares LoRA that is initialised from the weights (OLoRA) or the training data (EVA, LoRA-GA, CorDA)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.errors import ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.base import BackwardPasses, Hyperparameters, SearchSpace, Variant, narrowest, narrowest_input
from whichlora.variants.methods.lora import check_residual, check_scaling, lora_config, lora_parameter_count
from whichlora.variants.witness import Evidence


def _check_orthonormal(name: str, rows: Any) -> None:
    import torch

    rows = rows.detach().float()
    gram = rows @ rows.T
    distance = float((gram - torch.eye(len(gram), device=gram.device)).abs().max())
    if distance > 1e-2:
        raise ProofError(f"{name} does not start orthonormal: its Gram matrix is {distance:.3f} from the identity")


def _check_olora_start(model: Any, evidence: Evidence) -> None:
    for name, module in adapter_modules(model):
        _check_orthonormal(f"lora_B of {name}", module.lora_B["default"].weight.T)


OLORA = Variant(
    name="olora",
    title="OLoRA",
    paper="Büyükakyüz 2024, arXiv 2406.01775",
    recommended=Hyperparameters(
        rank=32,
        alpha=16,
        dropout=0.05,
        learning_rate=3e-4,
        epochs=1,
        batch_size=16,
        warmup=0.03,
        target_modules=("q_proj", "v_proj"),
        source="PEFT's examples/olora_finetuning (Alpaca-cleaned); its 100 warm-up steps as a share of the run",
    ),
    matched_learning_rate=None,
    build=lambda settings: lora_config(settings, init_lora_weights="olora"),
    expected_parameters=lora_parameter_count,
    start_witness=_check_olora_start,
    witness=check_residual,
    changes_base=True,
    converts_base_change=True,
    quantizable=False,
    rank_limit=narrowest,
)


def _eva_config(settings: Any) -> Any:
    from peft import EvaConfig

    # No label mask, as in the authors' scripts: one answer token per item would be too few for an SVD.
    eva = EvaConfig(rho=settings.options["rho"], tau=settings.options["tau"], use_label_mask=False)
    return lora_config(settings, init_lora_weights="eva", eva_config=eva)


def _initialize_from_activations(model: Any, batches: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> None:
    """Initialise A with the right singular vectors of each layer's inputs; allocate ranks by explained variance."""
    import torch
    from peft import initialize_lora_eva_weights

    from whichlora.models.answer_logits import logits_at

    first = torch.tensor([0], device=model.device)  # the inputs of the layers matter, not the logits
    needed = round(model.peft_config["default"].r * options["rho"])
    usable = []
    for batch in batches:
        ids, labels = batch["input_ids"], batch["labels"]
        last = (labels != -100).int().cumsum(1).argmax(1)  # the answer ends the text; the rest is padding
        mask = torch.arange(ids.shape[1], device=ids.device) <= last[:, None]
        if int(mask.sum()) >= needed:  # PEFT skips smaller batches, and loops forever if there are no others
            usable.append({"input_ids": ids, "attention_mask": mask.long()})
    if not usable:
        raise ProofError(
            f"no batch of training items has the {needed} tokens that EVA needs for its initialisation at this rank"
        )

    def forward(model: Any, inputs: Mapping[str, Any]) -> Any:
        model.train()  # PEFT sets eval mode, which on a CPU packs a 4-bit base permanently, without gradients
        return logits_at(model, first, **inputs)

    # All processes have the same batches, so there is nothing to gather.
    initialize_lora_eva_weights(
        model, usable, forward_fn=forward, gather_distributed_inputs=False, show_progress_bar=False
    )


def _check_eva_start(model: Any, evidence: Evidence) -> None:
    for name, module in adapter_modules(model):
        _check_orthonormal(f"lora_A of {name}", module.lora_A["default"].weight)


def _check_rank_budget(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    total = sum(module.r["default"] for _, module in adapter_modules(model))
    budget = evidence.settings.rank * len(evidence.base)
    if total != budget:
        raise ProofError(f"the ranks add up to {total}; the budget is {budget}")


EVA = Variant(
    name="eva",
    title="EVA",
    paper="Paischer et al. 2024, arXiv 2410.07170",
    recommended=Hyperparameters(
        rank=16,
        alpha=1,
        learning_rate=5e-4,
        epochs=1,
        batch_size=8,
        warmup=0.03,
        scheduler="cosine",
        source="the authors' run_train.sh (Llama 2 on question answering); rho from PEFT's examples/eva_finetuning",
    ),
    matched_learning_rate=None,
    options={"rho": 2.0, "tau": 0.99},
    option_ranges={"rho": (1.0, 100.0), "tau": (0.0, 1.0)},
    rank_means="mean rank; a layer gets up to twice as much, or none at all",
    build=_eva_config,
    expected_parameters=lora_parameter_count,
    initialize=_initialize_from_activations,
    start_witness=_check_eva_start,
    witness=_check_rank_budget,
    rank_limit=lambda shapes: narrowest_input(shapes) // 2,
)


GRADIENT_BATCHES, COVARIANCE_BATCHES = 16, 32
"""Batches of 8 items from which LoRA-GA and CorDA are initialised, as many items as in PEFT's examples of the two."""


def _check_orthogonal(name: str, rows: Any) -> None:
    import torch

    _check_orthonormal(name, torch.nn.functional.normalize(rows.detach().float()))


def _check_orthogonal_start(model: Any, evidence: Evidence) -> None:
    for name, module in adapter_modules(model):
        _check_orthogonal(f"lora_B of {name}", module.lora_B["default"].weight.T)


def _lora_ga_config(settings: Any) -> Any:
    from peft.tuners.lora import LoraGAConfig

    start = LoraGAConfig(stable_gamma=settings.options["gamma"])
    return lora_config(settings, init_lora_weights="lora_ga", lora_ga_config=start)


def _estimate_gradients(model: Any, config: Any, passes: BackwardPasses, batches: Any) -> None:
    from peft.tuners.lora import preprocess_loraga

    def train_step() -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")  # in the first block
            for backward in passes[:GRADIENT_BATCHES]:
                backward(model)

    preprocess_loraga(model, config, train_step)


LORA_GA = Variant(
    name="lora-ga",
    title="LoRA-GA",
    paper="Wang et al. 2024, arXiv 2407.05000",
    recommended=Hyperparameters(
        rank=8,
        alpha=16,
        dropout=0.1,
        learning_rate=3e-5,
        epochs=3,
        batch_size=8,
        warmup=0.0,
        target_modules="all-linear",
        source="PEFT's examples/lora_ga_finetuning (its README's full example, which gives no warm-up)",
    ),
    matched_learning_rate=None,
    options={"gamma": 16},
    option_ranges={"gamma": (1, 65536)},
    build=_lora_ga_config,
    expected_parameters=lora_parameter_count,
    prepare=_estimate_gradients,
    start_witness=_check_orthogonal_start,
    witness=check_residual,
    changes_base=True,
    converts_base_change=True,
    quantizable=False,
    rank_limit=lambda shapes: narrowest(shapes) // 2,
)


def _corda_config(settings: Any) -> Any:
    from peft.tuners.lora.config import CordaConfig

    # Its other mode preserves the knowledge of texts that are not those of the task.
    return lora_config(settings, init_lora_weights="corda", corda_config=CordaConfig(corda_method="ipm"))


def _collect_covariances(model: Any, config: Any, passes: BackwardPasses, batches: Any) -> None:
    """Let PEFT see the inputs of each layer, one text at a time: it knows no padding."""
    import torch
    from peft.tuners.lora.corda import preprocess_corda

    from whichlora.data.batching import IGNORED
    from whichlora.models.answer_logits import logits_at

    first = torch.tensor([0], device=model.device)  # the inputs of the layers matter, not the logits

    def run_model() -> None:
        for batch in batches[:COVARIANCE_BATCHES]:
            for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
                length = int((labels != IGNORED).nonzero().max()) + 1  # the answer ends the text; the rest is padding
                logits_at(model, first, input_ids=ids[None, :length])

    preprocess_corda(model, config, run_model)


CORDA = Variant(
    name="corda",
    title="CorDA",
    paper="Yang et al. 2024, arXiv 2406.05223",
    recommended=Hyperparameters(
        rank=128,
        alpha=128,
        learning_rate=2e-5,
        epochs=1,
        batch_size=32,
        warmup=0.03,
        scheduler="cosine",
        source="PEFT's examples/corda_finetuning (Llama 2 7B on MetaMathQA), in which alpha is the rank",
    ),
    matched_learning_rate=None,
    space=SearchSpace(epochs=(1, 3)),
    build=_corda_config,
    expected_parameters=lora_parameter_count,
    prepare=_collect_covariances,
    start_witness=_check_orthogonal_start,
    witness=check_residual,
    changes_base=True,
    converts_base_change=True,
    quantizable=False,
    rank_limit=narrowest,
)
