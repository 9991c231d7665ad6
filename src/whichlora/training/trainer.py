"""Trains one adapter with the Trainer of transformers and restores the best checkpoint, on every rank alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, TrainerCallback

from whichlora import termination
from whichlora.config.plan import Plan
from whichlora.config.spec import RunSpec
from whichlora.data.batching import BucketBatches
from whichlora.data.mixture import trained_count
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels.fast_paths import TrainingPaths, prepare_training
from whichlora.parallel import distributed, lockstep
from whichlora.training import adapter, base_cache, checkpoints
from whichlora.training.arguments import make_optimizer, training_arguments
from whichlora.training.callbacks import (
    BestCheckpoint,
    CheckpointTimer,
    GradientCheck,
    Losses,
    LossLog,
    StepHook,
    Stopwatch,
    VariantSteps,
    measured_until_pruned,
)
from whichlora.training.micro_batches import MICRO_BATCH, MicroBatches
from whichlora.training.multi_adapter import Batch, try_together, why_not_packable
from whichlora.training.objectives import AnswerTokens, Objective, objective_of
from whichlora.training.progress import ProgressBar, TimeEstimate
from whichlora.training.verification import prove_finite, prove_step, prove_trained, trainable_tensors
from whichlora.variants import Variant


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of training, on the leader.

    Attributes:
        model: the trained model, at its best checkpoint.
        trainable: number of trainable parameters.
        seconds: training time over all attempts, without validation and checkpoints.
        examples: items trained on, counted once per epoch.
        best_step: the optimiser step after which the best checkpoint was saved.
        micro_batch: size of a micro-batch at the end of training.
        checkpointing: whether memory ran out so far that gradient checkpointing was turned on.
        packed: the largest number of runs in a joint pass with this run; 1 without joint passes.
    """

    model: Any
    trainable: int
    seconds: float
    examples: int
    best_step: int
    micro_batch: int
    checkpointing: bool
    packed: int


def total_steps(spec: RunSpec) -> int:
    """Return the number of optimiser steps."""
    assert spec.epochs is not None
    assert spec.batch_size is not None
    examples = trained_count(spec.tl_ratio, spec.train_size, spec.composition)
    return spec.epochs * math.ceil(examples / spec.batch_size)


def train(
    plan: Plan,
    examples: Sequence[Any],
    work: Path,
    *,
    validate: Callable[[Any, int], float] | None = None,
    on_losses: Callable[[Losses], None] | None = None,
    on_step: Callable[[Any, int], None] | None = None,
    hook_steps: Container[int] = (),
    telemetry: AbstractContextManager[Any] | None = None,
) -> TrainingResult | None:
    """Attach the plan's adapter to its model and train it on `examples`, resuming from a checkpoint in `work`, if any.

    Only the leader passes the arguments after `work`; the other ranks return None.

    Args:
        examples: training examples as returned by the plan's objective.
        validate: returns the validation score, called with the model and the number of finished steps.
        on_losses: receives the (step, mean loss) points since its last call.
        on_step: called with the model and the number of finished steps after each of `hook_steps`; may raise.
        telemetry: context manager that is entered during training.

    Raises:
        ProofError: The adapter does not match the spec, or did not train.
        NonFiniteError: A loss, a gradient or a trained tensor is not finite.
        MemoryExhausted: A single item does not fit into memory.
        PrunedError: `on_step` raised it.
        Terminated: A signal ended the training, after a checkpoint if possible.
    """
    spec, variant = plan.spec, plan.variant
    # Full fine-tuning keeps fp32 weights under bf16 autocast: bf16 weights would lose small updates.
    precision = "fp32" if variant.trains_whole_model else spec.precision
    base = base_cache.checkout(plan, precision=precision)
    transformers.set_seed(spec.seed)  # before attaching: the initialisation is random too
    model, evidence, trainable = adapter.attach(base, plan, total_steps=total_steps(spec), work=work)
    paths = prepare_training(model, bf16=spec.precision == "bf16")
    resume = checkpoints.last_complete(work)
    distributed.barrier()  # no rank may write a checkpoint before all ranks have looked for the last one
    leads = validate is not None
    if leads:
        adapter.save_initial(model, plan, work)
    watch = Stopwatch(resume[1]["seconds"] if resume else 0.0)
    losses, timer = LossLog(on_losses), CheckpointTimer(leads=leads)
    outstanding = resume is not None and resume[1]["outstanding"]
    validation = None if validate is None else lambda step: validate(model, step)
    best = BestCheckpoint(variant, spec, work, validation, watch, outstanding=outstanding)
    callbacks: list[TrainerCallback] = [GradientCheck(evidence), watch, VariantSteps(variant, evidence), timer]
    if on_step is not None:
        hook = StepHook(lambda step: on_step(model, step), hook_steps, watch, timer, outstanding=outstanding)
        callbacks.append(hook)
    callbacks += [losses, best, TimeEstimate(), ProgressBar(plan.name)]  # the bar shows what `losses` logs
    assert spec.batch_size is not None
    objective, share = objective_of(plan), spec.batch_size // distributed.world_size()
    micro = MicroBatches(base, min(MICRO_BATCH, share) if objective.divisible else share)
    trainer = _Trainer(
        model=model,
        args=training_arguments(spec, work, total_steps(spec)),
        train_dataset=list(examples),
        callbacks=callbacks,
        optimizers=(make_optimizer(model, variant, spec, evidence), None),
        variant=variant,
        watch=watch,
        losses=losses,
        timer=timer,
        best=best,
        micro=micro,
        batch_size=spec.batch_size,
        objective=objective.optimized_for(model),
        paths=paths,
        joint=lockstep.active() and why_not_packable(plan) is None,
    )
    trainer.remove_callback(PrinterCallback)
    if distributed.rank() > 0:
        torch.manual_seed(spec.seed + distributed.rank())  # dropout masks differ between ranks
    with telemetry or nullcontext(), termination.deferred(), measured_until_pruned(trainer, losses, watch):
        trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    termination.check()
    evidence.last_step = trainer.state.global_step
    prove_trained(model, variant, evidence)
    if not leads:
        return None
    losses.report(trainer.state)
    best_record = checkpoints.load_best(model, variant, work)
    model.eval()
    assert spec.epochs is not None
    return TrainingResult(
        model=model,
        trainable=trainable,
        seconds=watch.seconds,
        examples=len(examples) * spec.epochs,
        best_step=best_record["step"],
        micro_batch=micro.size,
        checkpointing=micro.checkpointing,
        packed=trainer.packed,
    )


class _Trainer(Trainer):
    """The Trainer of transformers with another training step, item order and checkpoint format.

    One batch of the Trainer is one optimiser step: it contains this rank's share of the effective batch.
    """

    def __init__(
        self,
        *,
        variant: Variant,
        watch: Stopwatch,
        losses: LossLog,
        timer: CheckpointTimer,
        best: BestCheckpoint,
        micro: MicroBatches,
        batch_size: int,
        objective: Objective,
        paths: TrainingPaths,
        joint: bool,
        **arguments: Any,
    ) -> None:
        self._variant, self._micro, self._paths = variant, micro, paths
        self._watch, self._losses, self._timer, self._best = watch, losses, timer, best
        self._effective_batch, self._objective = batch_size, objective
        self.packed, self._learning = 1, False
        super().__init__(**arguments)
        self._joint_layers = dict(adapter_modules(self.model)) if joint else {}

    def training_step(self, model: Any, inputs: list[Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Compute the gradients of the mean loss over the effective batch, plus the variant's penalty."""
        self.model.train()
        count = self._timer.agree(self._objective.count(inputs))

        def backward(part: Sequence[Any]) -> torch.Tensor:
            examples = part if self._objective.divisible else part[0]
            with self._objective.batch_context(self.model), self._paths.enabled():
                with self.compute_loss_context_manager():
                    loss = self._objective.loss(self.model, examples)
                self.accelerator.backward(loss / count)
            return loss.detach()

        loss = self._joint_step(inputs, count)
        if loss is None:
            loss = self._micro.sum(inputs if self._objective.divisible else [inputs], backward)
        self._losses.add(loss, count)
        if self._variant.penalty is not None:
            self.accelerator.backward(self._variant.penalty(self.model) / distributed.world_size())
        distributed.all_reduce_gradients(self.model)
        self._step_loss = distributed.all_reduce_tensor(loss)
        return loss / count

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        """Clip the gradients as the Trainer does, but check loss and norm first: a NaN norm makes every gradient NaN.

        All processes have the same loss and gradients, and raise alike.
        """
        parameters = list(model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        step = self.state.global_step + 1
        self._learning = prove_step(step, self._step_loss, norm, self.model, learning=self._learning)
        torch.nn.utils.clip_grads_with_norm_(parameters, self.args.max_grad_norm, norm)
        return norm

    def _joint_step(self, inputs: list[Any], count: float) -> torch.Tensor | None:
        """Compute the gradients in one pass with other runs, and return the summed loss; None if that is impossible."""
        if not (self._joint_layers and isinstance(self._objective, AnswerTokens) and self._objective.packs):
            return None
        # Without `share_prefix` the base model has dropout, whose masks would be drawn for all runs at once.
        if not self._objective.share_prefix or len(inputs) > self._micro.size or self._micro.checkpointing:
            return None
        if self._objective.switch is not None and max(map(len, inputs)) > self._objective.switch:
            return None  # LongRoPE would rotate the texts of other runs by the long factors too
        batch = Batch(
            model=self.model,
            layers=self._joint_layers,
            examples=inputs,
            count=count,
            paths=self._paths,
            autocast=self.compute_loss_context_manager,
        )
        result = lockstep.step(batch, try_together)
        if result is None:
            return None
        loss, runs = result
        self.packed = max(self.packed, runs)
        return loss

    def get_train_dataloader(self) -> torch.utils.data.DataLoader[Any]:
        batches = BucketBatches(
            [self._objective.length(example) for example in self.train_dataset],
            self._effective_batch,
            self.args.seed,
            epoch=lambda: self.state.global_step // len(batches),
            share=(distributed.rank(), distributed.world_size()),
        )
        return torch.utils.data.DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=list)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the Trainer's estimate needs tensors as inputs

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # `save_pretrained` of PEFT rewrites AdaLoRA's ranks, so training could not resume from such a checkpoint.
        checkpoints.save_state(self.model, self._variant, Path(output_dir or self.args.output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.load_state(self.model, self._variant, Path(resume_from_checkpoint))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._watch.stop()
        work, step = Path(self.args.output_dir), self.state.global_step
        if distributed.world_size() > 1:  # the leader alone writes, but all have to raise
            prove_finite(trainable_tensors(self.model).items(), f"after step {step}")
        if self.args.should_save:
            checkpoints.keep_newest(work)
        super()._save_checkpoint(model, trial)
        distributed.barrier()  # each rank has written its random state
        if self.args.should_save:
            validated = self._best.validated == step or not self._best.ends_epoch(self.state)
            metadata = {"seconds": self._watch.seconds, "outstanding": self._timer.ends or not validated}
            checkpoints.mark_complete(work / f"checkpoint-{step}", metadata)
            self._losses.report(self.state)
        if self._timer.ends:
            distributed.barrier()
            raise termination.terminated()
        self._watch.start()
