"""What is shown during training: a progress bar, and an estimate of the time."""

from __future__ import annotations

import time
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from whichlora.announcements import announce
from whichlora.config.cli import format_duration

_MEASURED_STEPS, _MEASURED_SECONDS = 5, 20.0
"""Number of steps after which the time of the training is estimated; fewer if they take longer."""
_WORTH_SAYING = 10.0
"""Seconds above which the time left is shown."""


class ProgressBar(ProgressCallback):
    """Progress bar with the run's name and the loss, in place of the dictionaries that transformers prints."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar with its name; `initial` excludes the steps before a resume from the displayed speed."""
        self.current_step = state.global_step
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self._name, dynamic_ncols=True
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs and "cross_entropy" in logs:
            self.training_bar.set_postfix(loss=f"{logs['cross_entropy']:.3f}")


class TimeEstimate(TrainerCallback):
    """Says after some steps how long the training of the whole takes, once in a process."""

    def __init__(self) -> None:
        self._since, self._first = 0.0, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure from the end of the first step, which includes what is done once."""
        if not state.is_world_process_zero:
            return
        now = time.monotonic()
        if not self._first:
            self._since, self._first = now, state.global_step
        steps, seconds = state.global_step - self._first, now - self._since
        if steps == _MEASURED_STEPS or (steps and seconds > _MEASURED_SECONDS):
            left = (state.max_steps - state.global_step) * seconds / steps
            if left > _WORTH_SAYING:
                text = f"Training takes about {format_duration(left)} more: {state.max_steps} steps of "
                announce(f"{text}{seconds / steps:.2g} s, measured on {steps}.", key="training")
