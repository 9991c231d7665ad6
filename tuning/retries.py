"""Retries trials that raised or whose worker died, up to a limit, and rejects trials that other workers run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

ATTEMPTS = 2
"""Number of attempts at a trial that raises an exception."""
DEATHS = 5
"""Number of worker deaths up to which a trial is retried: the trial itself may be what kills its workers."""
PLACE = "place"
"""User attribute of a trial: its bracket, rung and slot in a study with rungs."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of the trials that count towards a study's budget."""


class SurplusTrialError(RuntimeError):
    """The trial is not needed, because other workers have started the last trials of the study."""


class DuplicateTrialError(SurplusTrialError):
    """The trial repeats another one."""


def enqueue_retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a trial again, unless too many workers have died running it.

    The worker's name is not copied, because otherwise the retry would be failed at once as a trial of a dead worker.
    """
    copied = copy.deepcopy(trial)
    copied.user_attrs = {k: v for k, v in trial.user_attrs.items() if k not in ("worker", "error", "run_id")}
    copied.system_attrs = {
        k: v for k, v in copied.system_attrs.items() if not k.startswith(("completed_rung", "constraints"))
    }
    if _deaths(trial) <= DEATHS:
        most = ATTEMPTS + DEATHS + int(trial.user_attrs.get("interrupted", 0))
        retry = RetryHeartbeatStaleTrialCallback(max_retry=most, inherit_intermediate_values=True)
        retry(study, copied)


def earlier_attempts(trial: FrozenTrial) -> list[int]:
    """Return the numbers of the trials that this trial retries, oldest first."""
    return RetryHeartbeatStaleTrialCallback.retry_history(trial)


def _deaths(trial: FrozenTrial) -> int:
    """Return the number of workers that have died running a failed trial, including the last one."""
    ended_otherwise = int(trial.user_attrs.get("raised", 0)) + int(trial.user_attrs.get("interrupted", 0))
    return len(earlier_attempts(trial)) + 1 - ended_otherwise


def _needs_retry_after_death(trial: FrozenTrial) -> bool:
    """Return whether a failed trial is to be retried because its worker died."""
    return "error" not in trial.user_attrs and _deaths(trial) <= DEATHS


def given_up(trial: FrozenTrial) -> bool:
    """Return whether a failed trial is not attempted again: it raised too often, or too many workers died of it."""
    if trial.state is not TrialState.FAIL:
        return False
    raised = int(trial.user_attrs.get("raised", 0)) >= ATTEMPTS
    return raised or ("error" not in trial.user_attrs and _deaths(trial) > DEATHS)


def enqueue_missing(study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
    """Enqueue retries that are missing because the worker that failed a dead worker's trial died as well."""
    for trial in started_trials(trials):
        if trial.state is TrialState.FAIL:
            enqueue_retry(study, trial)


def original_number(trial: FrozenTrial) -> int:
    """Return the number of the first attempt at a trial, which is its own number unless it is a retry."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def started_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that use up budget: counted, running, or to be retried.

    Of several attempts at one trial only the last is returned.
    """
    retried = {n for t in trials for n in earlier_attempts(t)}
    return [
        t
        for t in trials
        if t.state in (*COUNTED, TrialState.RUNNING)
        or (t.state is TrialState.WAITING and original_number(t) != t.number)
        or (t.state is TrialState.FAIL and t.number not in retried and _needs_retry_after_death(t))
    ]


def device_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Return the device-seconds of trials, including failed ones."""
    retried = {n for t in trials for n in earlier_attempts(t)}  # a retry's seconds include theirs
    return float(sum(t.user_attrs.get("seconds", 0.0) for t in trials if t.number not in retried))


def times_tried(point: Mapping[str, Any], before: int, trials: Sequence[FrozenTrial]) -> int:
    """Return the number of trials before number `before` with this point; each repetition uses the next seed."""
    return sum(t.params == point and original_number(t) == t.number and t.number < before for t in trials)


def check_needed(trial: FrozenTrial, trials: Sequence[FrozenTrial], limit: int, *, retries_only: bool) -> None:
    """Check that no other worker runs the same trial and that the study still needs it.

    Args:
        trial: the trial that Optuna assigned to this process.
        trials: all trials of the study.
        limit: the number of counted trials at which the study ends.
        retries_only: whether the study needs no new trials.

    Raises:
        SurplusTrialError: the trial is not needed.
    """
    number, name = original_number(trial), _name(trial)
    attempts = (trial.number, *earlier_attempts(trial))  # the previous attempt may still be running
    others = [t for t in trials if t.state is not TrialState.FAIL and t.number not in attempts]
    if any(original_number(t) == number for t in others if t.number < trial.number):
        raise DuplicateTrialError("another worker has resumed this trial")
    started = started_trials(trials)
    # `started` adds the trials of dead workers, which will be retried.
    if name and any(_name(t) == name and original_number(t) < number for t in (*others, *started)):
        raise DuplicateTrialError(f"two workers began with the {name}")
    if number == trial.number and PLACE in trial.user_attrs:
        if retries_only:
            raise SurplusTrialError("no new trial may begin")
    elif number == trial.number:
        earlier = [t for t in started if t.number < trial.number or original_number(t) != t.number]
        if retries_only or len(earlier) >= limit:
            raise SurplusTrialError(f"other workers have begun the last of {limit} trials")


def _name(trial: FrozenTrial) -> str | None:
    """Return what a trial is that the study needs once: a known point, or a place in a rung; None for others."""
    if place := trial.user_attrs.get(PLACE):
        return "place {} of rung {} in bracket {}".format(*reversed(place))
    known = trial.user_attrs.get("known")
    return f"{known} point" if known else None
