"""What becomes of a trial whose worker died or that raised: it is enqueued again with its values, up to a limit."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

ATTEMPTS = 2
"""How often a point that raises is tried."""
DEATHS = 5
"""How many workers may die over a trial before it is given up: it may be what kills them."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


def enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a trial again, without what was its dead worker's: by that one's name the next would be failed."""
    copied = copy.deepcopy(trial)
    copied.user_attrs = {k: v for k, v in trial.user_attrs.items() if k not in ("worker", "error", "run_id")}
    copied.system_attrs = {k: v for k, v in copied.system_attrs.items() if not k.startswith("completed_rung")}
    if _deaths(trial) <= DEATHS:
        retry = RetryHeartbeatStaleTrialCallback(max_retry=ATTEMPTS + DEATHS, inherit_intermediate_values=True)
        retry(study, copied)


def history(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the trials that one goes on with, the first one first."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def _deaths(trial: FrozenTrial) -> int:
    """Return how many workers have died over a trial that has failed, this time included."""
    return len(history(trial)) + 1 - int(trial.user_attrs.get("raised", 0))


def _died(trial: FrozenTrial) -> bool:
    """Whether a trial failed because its worker died, and not too many did."""
    return "error" not in trial.user_attrs and _deaths(trial) <= DEATHS


def root(trial: FrozenTrial) -> int:
    """Return the number of the trial that one goes on with: its own, unless it is a retry."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def needed(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count, are being made, or are to be gone on with after a death, each once."""
    followed = {n for t in trials for n in history(t)}
    return [
        t
        for t in trials
        if t.state in (*COUNTED, TrialState.RUNNING)
        or (t.state is TrialState.WAITING and root(t) != t.number)
        or (t.state is TrialState.FAIL and t.number not in followed and _died(t))
    ]
