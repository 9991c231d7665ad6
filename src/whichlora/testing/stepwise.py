"""Carries out a small run that saves a checkpoint and prints the step number after every step, until it is killed.

`python -m whichlora.testing.stepwise MODEL OPTION=VALUE...`, where the option `settings` is JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from whichlora.testing.runs import run_plan, small_plan
from whichlora.training import callbacks


def main(arguments: Sequence[str]) -> None:
    """Carry out the run in the experiment `tests` of the current tracking database."""
    on_step_end = callbacks.CheckpointTimer.on_step_end

    def print_step(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on_step_end(self, args, state, control, **kwargs)
        print("step", state.global_step, flush=True)

    callbacks.CHECKPOINT_SECONDS = 0.0
    callbacks.CheckpointTimer.on_step_end = print_step  # type: ignore[method-assign]
    model, *pairs = arguments
    options = dict(pair.split("=", 1) for pair in pairs)
    settings = json.loads(options.pop("settings", "{}"))
    run_plan(small_plan(model, settings, **options))


if __name__ == "__main__":
    main(sys.argv[1:])
