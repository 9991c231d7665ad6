"""Lists studies with their progress, and ends a study after its running trials."""

from __future__ import annotations

from datetime import datetime

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import text as sql

from tuning.divergence import converged, diverged
from tuning.halving.brackets import in_rung
from tuning.halving.rungs import Rungs
from tuning.retries import enqueue_retry
from tuning.space import describe_point
from whichlora.errors import OptionError, check_choice
from whichlora.scheduling import storage
from whichlora.scheduling.leases import Leases
from whichlora.text_tables import POINTS
from whichlora.tracking.sqlite import studies_state

PREFIX = "tune/"
"""Prefix of the studies in the database, which also holds queues."""
STOPS = "stopped"
"""User attribute of a study: how often it was stopped. Earlier versions stored the time at which it was."""
NO_STUDIES = "there are no studies in this database"
_STATES = {TrialState.FAIL: "failed"}
"""What states are called, other than by their names in Optuna."""
RUNGS = "rungs"
"""User attribute of a study with rungs: their number."""


def connect(url: str | None = None) -> RDBStorage:
    """Open the database that holds the studies."""
    return storage.connect(enqueue_retry, url)


def exists() -> bool:
    """Return whether the database exists, without creating it; one on a server counts as existing."""
    file = storage.storage_file()
    return file is None or studies_state(file) != "absent"


def names(database: RDBStorage) -> list[str]:
    """Return the names of all studies."""
    stored = optuna.get_all_study_names(database)
    return sorted(name.removeprefix(PREFIX) for name in stored if name.startswith(PREFIX))


def status(database: RDBStorage) -> str:
    """Return a paragraph per study: its trials by state, best value, last heartbeat, and the command to resume it."""
    lines = []
    for name in names(database):
        study = optuna.load_study(study_name=PREFIX + name, storage=database)
        trials = study.get_trials(deepcopy=False)
        counts = {state: sum(trial.state is state for trial in trials) for state in TrialState}
        states = ", ".join(f"{n} {_STATES.get(state, state.name.lower())}" for state, n in counts.items() if n)
        lines.append(f"{name}: {states or 'no trials'}")
        rungs = Rungs(int(study.user_attrs.get(RUNGS, 1)))
        complete = in_rung(converged(trials), rungs.top)
        if rungs.halving:
            done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
            by_rung = " / ".join(str(len(in_rung(done, rung))) for rung in range(rungs.number))
            lines.append(f"  complete by rung, from the fewest items to all: {by_rung}")
        if n_diverged := sum(map(diverged, trials)):
            lines.append(f"  {n_diverged} of the complete trials diverged")
        if complete and len(study.directions) == 1:
            best = max(complete, key=lambda trial: trial.values[0])
            lines.append(
                f"  best: {POINTS.text(best.values[0])} points in trial {best.number} ({describe_point(best.params)})"
            )
        elif complete:
            lines.append(f"  {len(study.best_trials)} trials on the Pareto front")
        age = _heartbeat_age(database, study._study_id)
        if age is not None:
            lines.append(f"  last heartbeat of a running trial: {age:.0f} s ago")
        orphans = Leases(study, enqueue_retry).orphans()
        if orphans:
            numbers = ", ".join(str(t.number) for t in orphans)
            lines.append(f"  trials whose worker died: {numbers} (resumed with the study)")
        lines.append(f"  resume: {study.user_attrs.get('command', '')}")
    return "\n".join(lines) or "There are no studies."


def _heartbeat_age(database: RDBStorage, study_id: int) -> float | None:
    query = (
        "SELECT MAX(h.heartbeat), CURRENT_TIMESTAMP FROM trial_heartbeats h JOIN trials t ON t.trial_id = h.trial_id "
        "WHERE t.study_id = :study AND t.state = 'RUNNING'"
    )
    with database.engine.connect() as connection:
        last, now = connection.execute(sql(query), {"study": study_id}).one()
    if last is None:
        return None
    last, now = (datetime.fromisoformat(v) if isinstance(v, str) else v for v in (last, now))
    return max(0.0, (now.replace(tzinfo=None) - last.replace(tzinfo=None)).total_seconds())  # the clock may be set back


def stop(database: RDBStorage, name: str) -> None:
    """End a study after its running trials; calling `tune` again resumes it.

    Raises:
        OptionError: no study has this name, or this user cannot write to the database.
    """
    stored = names(database)
    if not stored:
        raise OptionError("study", name, NO_STUDIES)
    check_choice("study", name, stored)
    storage.check_writable()
    study = optuna.load_study(study_name=PREFIX + name, storage=database)
    # A count, which processes compare with what it was when they opened the study: clocks of machines differ.
    study.set_user_attr(STOPS, int(study.user_attrs.get(STOPS, 0)) + 1)
