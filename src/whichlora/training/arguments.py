"""Makes the arguments and the optimiser that a run gives to the Trainer of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from whichlora.config.spec import RunSpec
from whichlora.parallel import distributed
from whichlora.variants import Variant
from whichlora.variants.witness import Evidence


def training_arguments(spec: RunSpec, work: Path, steps: int) -> TrainingArguments:
    """Return the arguments of the Trainer of transformers for a run of `steps` optimiser steps."""
    assert spec.batch_size is not None
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=spec.batch_size // distributed.world_size(),
        num_train_epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        # The Trainer's "constant" ignores the warm-up.
        lr_scheduler_type="constant_with_warmup" if spec.scheduler == "constant" and spec.warmup else spec.scheduler,
        warmup_steps=round((spec.warmup or 0) * steps),
        bf16=spec.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,  # it would hide what `prove_step` reports, and waits for the device to do so
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,  # `ProgressBar` replaces the Trainer's bar
        remove_unused_columns=False,
    )


def make_optimizer(model: Any, variant: Variant, spec: RunSpec, evidence: Evidence) -> torch.optim.Optimizer | None:
    """Return the optimiser that the variant prescribes, and record it in `evidence`; None for the Trainer's own."""
    if variant.optimizer is None:
        return None
    assert spec.learning_rate is not None
    assert spec.weight_decay is not None
    optimizer = variant.optimizer(model, spec.learning_rate, spec.weight_decay, spec.variant_options)
    evidence.optimizer = optimizer
    return optimizer
