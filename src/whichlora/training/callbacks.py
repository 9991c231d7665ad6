"""Trainer callbacks: gradient checks, time, losses, checkpoints and selection of the best epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from whichlora import termination
from whichlora.config.spec import RunSpec
from whichlora.errors import PrunedError, number_from_environment
from whichlora.parallel import distributed, lockstep
from whichlora.training import checkpoints
from whichlora.training.verification import prove_gradients, record_rates
from whichlora.variants import Variant
from whichlora.variants.witness import Evidence

CHECKPOINT_SECONDS = number_from_environment("WHICHLORA_CHECKPOINT_SECONDS", 60, low=0)
"""Seconds between checkpoints: the most training that a killed run loses."""

RECORD, METRICS = "training", "metrics.json"
"""Folder of what a variant records of its training, in the work folder and among the run's artifacts, and its file with
metrics."""

Losses = list[tuple[int, float]]


class GradientCheck(TrainerCallback):
    """Checks the first gradients and records the learning rates."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        prove_gradients(self.evidence)
        if not self.evidence.rates:
            record_rates(model, optimizer, self.evidence)


class Stopwatch(TrainerCallback):
    """Counts seconds of training from an initial value; synchronises with the GPU on every start and stop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: float | None = None

    def start(self) -> None:
        """Start or continue counting."""
        self._since = _now()

    def stop(self) -> None:
        """Stop counting; no effect if already stopped."""
        if self._since is not None:
            self.seconds += _now() - self._since
            self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause counting within the block."""
        self.stop()
        yield
        self.start()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.stop()


class LossLog(TrainerCallback):
    """Accumulates losses and writes their mean to the Trainer's log as `cross_entropy`.

    `report` receives (step, mean loss) points; None on all ranks except the leader.
    """

    def __init__(self, report: Callable[[Losses], None] | None) -> None:
        self._report = report
        self._loss, self._count = torch.zeros(()), 0
        self._reported = 0

    def add(self, loss: torch.Tensor, count: int) -> None:
        """Add an optimiser step: the sum of this rank's losses, and the number of losses on all ranks."""
        self._loss = self._loss.to(loss.device) + loss
        self._count += count

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._count and logs is not None:
            (loss,) = distributed.all_reduce_sum(float(self._loss))
            logs["cross_entropy"] = state.log_history[-1]["cross_entropy"] = loss / self._count
            self._loss, self._count = torch.zeros(()), 0

    def report(self, state: Any) -> None:
        """Report the points since the last report."""
        if self._report is None:
            return
        entries = [(e["step"], e["cross_entropy"]) for e in state.log_history if "cross_entropy" in e]
        self._report([entry for entry in entries if entry[0] > self._reported])
        if entries:
            self._reported = entries[-1][0]

    def report_rest(self, state: Any) -> None:
        """Report the points since the last report, the last one for the steps that the Trainer has not logged yet."""
        if self._count:
            state.log_history.append({"step": state.global_step, "cross_entropy": float(self._loss) / self._count})
        self.report(state)


class CheckpointTimer(TrainerCallback):
    """Triggers a checkpoint every `CHECKPOINT_SECONDS`, by the leader's clock, and when a signal ends this process.

    Attributes:
        ends: whether training ends after the checkpoint of this step, because any rank received a signal.
    """

    def __init__(self, *, leads: bool) -> None:
        self._leads = leads
        self._saved = time.monotonic()
        self._due = self.ends = False

    def agree(self, count: int) -> int:
        """Return the sum of `count` over all ranks, and decide on all of them alike whether to save after this step."""
        overdue = self._leads and time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        total, due, ends = distributed.all_reduce_sum(count, overdue, termination.requested())
        self._due, self.ends = due > 0, ends > 0
        return int(total)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if distributed.world_size() == 1:
            self.ends = termination.requested()  # since `agree`
        if state.global_step == state.max_steps:
            if self.ends:  # nothing resumes after the last step
                raise termination.terminated()
        elif self._due or self.ends:
            control.should_save = control.should_log = True  # losses not logged by now would be lost in a resume
            self._saved = time.monotonic()


class StepHook(TrainerCallback):
    """Calls `hook` with the number of finished steps after each of `steps`; the time does not count as training.

    If a signal ends training after the step, the call takes place when training resumes (`outstanding`).
    """

    def __init__(
        self,
        hook: Callable[[int], None],
        steps: Container[int],
        watch: Stopwatch,
        timer: CheckpointTimer,
        *,
        outstanding: bool,
    ) -> None:
        self._hook, self._steps, self._watch, self._timer = hook, steps, watch, timer
        self._outstanding = outstanding

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._outstanding:
            self._call(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._timer.ends:
            self._call(state.global_step)

    def _call(self, step: int) -> None:
        if step in self._steps:
            with self._watch.paused(), termination.immediate():
                self._hook(step)


class VariantSteps(TrainerCallback):
    """Calls the variant's `after_step` after each optimiser step, and its `write_record` after the last one."""

    def __init__(self, variant: Variant, evidence: Evidence) -> None:
        self._variant, self._evidence = variant, evidence

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self._variant.after_step is not None:
            self._variant.after_step(model, state.global_step + 1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._variant.write_record is not None and args.should_save:
            folder = Path(args.output_dir) / RECORD
            folder.mkdir(parents=True, exist_ok=True)
            metrics = self._variant.write_record(self._evidence, folder)
            (folder / METRICS).write_text(json.dumps(dict(metrics)), encoding="utf-8")


class BestCheckpoint(TrainerCallback):
    """Saves the trainable weights of the epoch with the best validation score to `work`; ties go to the earliest.

    Attributes:
        validated: the number of finished steps at the last validation.
    """

    def __init__(
        self,
        variant: Variant,
        spec: RunSpec,
        work: Path,
        validate: Callable[[int], float] | None,
        watch: Stopwatch,
        *,
        outstanding: bool,
    ) -> None:
        """Store what validation needs.

        Args:
            validate: receives the number of finished steps and returns a score; None on all ranks except the leader.
            outstanding: whether training resumes from a checkpoint at which an epoch may have ended without validation.
        """
        self._variant, self._spec, self._work = variant, spec, work
        self._validate, self._watch, self._outstanding = validate, watch, outstanding
        self.validated = 0

    def ends_epoch(self, state: Any) -> bool:
        """Return whether the last finished step is the last one of an epoch."""
        assert self._spec.epochs is not None
        return bool(state.global_step % (state.max_steps // self._spec.epochs) == 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self._outstanding and self.ends_epoch(state):
            self._select(model, state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        control.should_save = state.global_step < state.max_steps
        self._select(model, state)

    def _select(self, model: Any, state: Any) -> None:
        step, validate = state.global_step, self._validate
        may_select, options = self._variant.may_select, self._spec.variant_options
        if not may_select or may_select(step, state.max_steps, options):
            with self._watch.paused(), termination.immediate():
                distributed.on_leader(
                    None if validate is None else lambda: self._save_if_best(model, step, validate(step))
                )
        self.validated = step

    def _save_if_best(self, model: Any, step: int, score: float) -> None:
        best = checkpoints.read_best(self._work)
        # A resumed run may reach the end of an epoch a second time.
        if best is None or (score, -step) > (best["score"], -best["step"]):
            checkpoints.save_best(model, self._variant, self._work, step=step, score=score)


@contextmanager
def measured_until_pruned(trainer: Any, losses: LossLog, watch: Stopwatch) -> Iterator[None]:
    """Report the losses of a training that is pruned within the block, and add its seconds and size to the error."""
    try:
        yield
    except PrunedError as pruned:
        losses.report_rest(trainer.state)
        trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
        pruned.metrics |= {"adapter/trainable_parameters": float(trainable), "train/seconds": watch.seconds}
        raise


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return lockstep.busy_seconds()
