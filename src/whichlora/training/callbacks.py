"""What is done between the steps of training: proof, time, losses, checkpoints and the choice of the best epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from whichlora.config.spec import RunSpec
from whichlora.parallel import distributed, lockstep
from whichlora.training import checkpoints
from whichlora.training.verification import prove_gradients, record_rates
from whichlora.variants import Variant
from whichlora.variants.witness import Evidence

CHECKPOINT_SECONDS = float(os.environ.get("WHICHLORA_CHECKPOINT_SECONDS", "60"))
"""Time between checkpoints, which bounds what a killed run loses."""

Losses = list[tuple[int, float]]


class GradientCheck(TrainerCallback):
    """Looks at the first gradients and at the learning rates."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        prove_gradients(self.evidence)
        if not self.evidence.rates:
            record_rates(model, optimizer, self.evidence)


class ProgressBar(ProgressCallback):
    """A progress bar under the run's name with the loss beside it, in place of printed dictionaries."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:  # a resumed run begins where it is, and its speed is of its own steps
            self.current_step = self.training_bar.initial = self.training_bar.n = state.global_step
            self.training_bar.set_description(self._name)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs and "cross_entropy" in logs:
            self.training_bar.set_postfix(loss=f"{logs['cross_entropy']:.3f}")


class Stopwatch:
    """Seconds of training. The accelerator has finished what it was given whenever the watch stops or starts."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since: float | None = None

    def start(self) -> None:
        """Go on counting."""
        self._since = _now()

    def stop(self) -> None:
        """Stop counting, if it was."""
        if self._since is not None:
            self.seconds += _now() - self._since
            self._since = None


class Keeper(TrainerCallback):
    """Counts time and losses, decides when to save, and keeps the best epoch.

    `validate`, `on_losses` and `peek` are the leading process's; the others have none. The first and the last take the
    number of finished steps.
    """

    def __init__(
        self,
        variant: Variant,
        spec: RunSpec,
        work: Path,
        validate: Callable[[int], float] | None,
        on_losses: Callable[[Losses], None] | None,
        *,
        peek: Callable[[int], None] | None,
        peek_steps: Container[int],
        seconds: float,
    ) -> None:
        self.variant, self.spec, self.work, self.validate, self.on_losses = variant, spec, work, validate, on_losses
        self.peek, self.peek_steps = peek, peek_steps
        self.watch = Stopwatch(seconds)
        self._saved = time.monotonic()
        self._due = False
        self._loss, self._count = torch.zeros(()), 0
        self._reported = 0

    def agree(self, losses: int) -> int:
        """Return the number of losses in a step over all processes, who agree here whether to save after it."""
        late = self.validate is not None and time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        count, due = distributed.all_reduce_sum(losses, late)
        self._due = due > 0
        return int(count)

    def add_loss(self, loss: torch.Tensor, count: int) -> None:
        """Add a step: this process's sum of losses, and the number of losses over all processes."""
        self._loss = self._loss.to(loss.device) + loss
        self._count += count

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.watch.stop()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if self.variant.after_step is not None:
            self.variant.after_step(model, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._due and state.global_step < state.max_steps:
            control.should_save = control.should_log = True  # a loss not yet logged would be lost with the process
            self._saved = time.monotonic()
        if self.peek is not None and state.global_step in self.peek_steps:
            self.watch.stop()
            self.peek(state.global_step)
            self.watch.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if self._count and logs is not None:
            (loss,) = distributed.all_reduce_sum(float(self._loss))
            logs["cross_entropy"] = state.log_history[-1]["cross_entropy"] = loss / self._count
            self._loss, self._count = torch.zeros(()), 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        step = state.global_step
        control.should_save = step < state.max_steps
        if self.variant.may_select and not self.variant.may_select(step, state.max_steps, self.spec.variant_options):
            return
        self.watch.stop()
        if self.validate is not None:
            self._keep_if_best(model, step, self.validate(step))
        distributed.barrier()
        self.watch.start()

    def report(self, state: Any) -> None:
        """Hand over the losses since the last report."""
        if self.on_losses is None:
            return
        entries = [(e["step"], e["cross_entropy"]) for e in state.log_history if "cross_entropy" in e]
        self.on_losses([entry for entry in entries if entry[0] > self._reported])
        if entries:
            self._reported = entries[-1][0]

    def _keep_if_best(self, model: Any, step: int, score: float) -> None:
        path = self.work / "best.json"
        best = checkpoints.read_json(path) if path.is_file() else None
        # A resumed run may come by an epoch's end again; the first of equals stays.
        if best is None or (score, -step) > (best["score"], -best["step"]):
            folder = f"best-{step}"
            checkpoints.save_state(model, self.variant, self.work / folder)
            checkpoints.write_json(path, {"step": step, "score": score, "folder": folder})


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return lockstep.busy_seconds()
