"""Fits one adapter to an objective, through transformers' Trainer, and keeps the best checkpoint."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from whichlora import checkpoints
from whichlora.encoding import Encoded, collate
from whichlora.mixture import trained_count
from whichlora.objectives import answer_tokens
from whichlora.proof import Evidence, prove_gradients, record_rates
from whichlora.spec import RunSpec
from whichlora.variants import Variant

MICRO_BATCH = 16
"""Most items in one forward pass; the effective batch is reached by accumulation."""
BUCKET_BATCHES = 20
"""Batches are cut from so many batches' items sorted by length: little padding, and still a shuffle."""
CHECKPOINT_SECONDS = float(os.environ.get("WHICHLORA_CHECKPOINT_SECONDS", "60"))
"""Time between checkpoints, which bounds what a killed run loses."""

Losses = list[tuple[int, float]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What training leaves: the model holds the best checkpoint.

    Attributes:
        seconds: of optimiser steps, without validation and checkpoints, over all the processes it took.
        examples: items trained on, repeats counted.
        best_step: the optimiser step after which the checkpoint was taken.
    """

    seconds: float
    examples: int
    best_step: int


def total_steps(spec: RunSpec) -> int:
    """Return the number of optimiser steps."""
    assert spec.epochs is not None
    assert spec.batch_size is not None
    examples = trained_count(spec.tl_ratio, spec.train_size, spec.composition)
    return spec.epochs * math.ceil(examples / spec.batch_size)


def fit(
    model: Any,
    examples: Sequence[Encoded],
    *,
    spec: RunSpec,
    variant: Variant,
    evidence: Evidence,
    pad: int,
    work: Path,
    validate: Callable[[], float],
    on_losses: Callable[[Losses], None],
) -> Fitted:
    """Train `model` on `examples` and leave it with the weights of the best epoch.

    A whole checkpoint under `work` is gone on from, with the same order of items, optimiser and random state.
    `validate` scores the model as it is; `on_losses` receives (step, mean cross-entropy) since it was last called.

    Raises:
        ProofError: a module gets no gradient.
    """
    steps = total_steps(spec)
    assert spec.batch_size is not None
    assert spec.epochs is not None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    micro = _micro_batch(spec.batch_size, world)
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=spec.batch_size // (micro * world),
        num_train_epochs=spec.epochs,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        lr_scheduler_type=spec.scheduler,
        warmup_steps=round((spec.warmup or 0) * steps),
        bf16=spec.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        seed=spec.seed,
        data_seed=spec.seed,
        logging_steps=max(1, steps // 100),
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,  # `_Bar` stands in for the library's bar
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    resume = checkpoints.last_complete(work)
    keeper = _Keeper(variant, spec, work, validate, on_losses, seconds=resume[1]["seconds"] if resume else 0.0)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=list(examples),
        data_collator=lambda batch: collate(batch, pad),
        callbacks=[_Prover(evidence), keeper, _Bar],
        optimizers=(_optimizer(model, variant, spec), None),
        variant=variant,
        keeper=keeper,
        batch_size=spec.batch_size,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    keeper.report(trainer.state)
    best = checkpoints.read_json(work / "best.json")
    checkpoints.load_state(model, variant, work / best["folder"])
    model.eval()
    return Fitted(
        seconds=keeper.seconds,
        examples=len(examples) * spec.epochs,
        best_step=best["step"],
    )


class BucketSampler(torch.utils.data.Sampler[int]):
    """Positions in an order in which each `batch_size` of them are of similar length; seeded anew each epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self.seed} {self.epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        # The odd items form the epoch's last batch, drawn at random so that it is not always the shortest.
        whole = len(order) - len(order) % self.batch_size
        window = self.batch_size * BUCKET_BATCHES
        batches = []
        for start in range(0, whole, window):
            bucket = sorted(order[start : min(start + window, whole)], key=lambda i: self.lengths[i])
            batches += [bucket[k : k + self.batch_size] for k in range(0, len(bucket), self.batch_size)]
        rng.shuffle(batches)
        for batch in batches:
            yield from batch
        yield from order[whole:]


def _micro_batch(batch_size: int, world: int) -> int:
    share = max(1, batch_size // world)
    return max(m for m in range(1, min(share, MICRO_BATCH) + 1) if share % m == 0)


def _optimizer(model: Any, variant: Variant, spec: RunSpec) -> torch.optim.Optimizer | None:
    if variant.optimizer is None:
        return None
    assert spec.learning_rate is not None
    assert spec.weight_decay is not None
    return variant.optimizer(model, spec.learning_rate, spec.weight_decay, spec.variant_options)


class _Trainer(Trainer):
    """The library's loop with our loss, order of items and checkpoints."""

    def __init__(self, *, variant: Variant, keeper: _Keeper, batch_size: int, **arguments: Any) -> None:
        self._variant, self._keeper, self._effective_batch = variant, keeper, batch_size
        super().__init__(**arguments)
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the count of the whole effective batch

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        loss, count = answer_tokens(model, inputs)
        self._keeper.add_loss(loss.detach(), count)
        mean: torch.Tensor = loss / (count if num_items_in_batch is None else num_items_in_batch)
        mean = mean * self.accelerator.num_processes  # gradients are averaged over the processes
        if self._variant.penalty is not None:
            penalty = self._variant.penalty(self.accelerator.unwrap_model(model))
            mean = mean + penalty / self.current_gradient_accumulation_steps
        return mean

    def _get_train_sampler(self, train_dataset: Any = None) -> BucketSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return BucketSampler([len(e) for e in dataset], self._effective_batch, self.args.seed)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # PEFT's own saving rewrites AdaLoRA's ranks and cannot be gone on from.
        checkpoints.save_state(self.model, self._variant, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_state(self.model, self._variant, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            work = Path(self.args.output_dir)
            folder = work / f"checkpoint-{self.state.global_step}"
            checkpoints.complete(folder, {"seconds": self._keeper.seconds})
            checkpoints.remove_others(work, folder)
            self._keeper.report(self.state)


class _Prover(TrainerCallback):
    """Looks at the first gradients and at the learning rates."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        prove_gradients(self.evidence)
        if not self.evidence.rates:
            record_rates(model, optimizer, self.evidence)


class _Bar(ProgressCallback):
    """A progress bar with the loss beside it, in place of printed dictionaries."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs and "cross_entropy" in logs:
            self.training_bar.set_postfix(loss=f"{logs['cross_entropy']:.3f}")


class _Keeper(TrainerCallback):
    """Counts time and losses, decides when to save, and keeps the best epoch."""

    def __init__(
        self,
        variant: Variant,
        spec: RunSpec,
        work: Path,
        validate: Callable[[], float],
        on_losses: Callable[[Losses], None],
        *,
        seconds: float,
    ) -> None:
        self.variant, self.spec, self.work, self.validate, self.on_losses = variant, spec, work, validate, on_losses
        self.seconds = seconds
        self._started = self._saved = time.monotonic()
        self._loss, self._count = torch.zeros(()), 0
        self._reported = 0

    def add_loss(self, loss: torch.Tensor, count: int) -> None:
        self._loss = self._loss.to(loss.device) + loss
        self._count += count

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.variant.after_step is not None:
            self.variant.after_step(model, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available() and state.global_step % 20 == 0:
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds += now - self._started
        if now - self._saved >= CHECKPOINT_SECONDS and state.global_step < state.max_steps:
            control.should_save = control.should_log = True  # a loss not yet logged would be lost with the process
            self._saved = now

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._count and logs is not None:
            value = float(self._loss) / self._count
            logs["cross_entropy"] = state.log_history[-1]["cross_entropy"] = value
            self._loss, self._count = torch.zeros(()), 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step = state.global_step
        control.should_save = step < state.max_steps
        if self.variant.may_select and not self.variant.may_select(step, state.max_steps, self.spec.variant_options):
            return
        score = self.validate()
        path = self.work / "best.json"
        best = checkpoints.read_json(path) if path.is_file() else None
        # A resumed run may come by an epoch's end again; the first of equals stays.
        if best is None or (score, -step) > (best["score"], -best["step"]):
            folder = f"best-{step}"
            checkpoints.save_state(model, self.variant, self.work / folder)
            checkpoints.write_json(path, {"step": step, "score": score, "folder": folder})

    def report(self, state: Any) -> None:
        """Hand over the losses since the last report."""
        entries = [(e["step"], e["cross_entropy"]) for e in state.log_history if "cross_entropy" in e]
        self.on_losses([entry for entry in entries if entry[0] > self._reported])
        if entries:
            self._reported = entries[-1][0]
