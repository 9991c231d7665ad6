"""Tunes variants for other commands, and returns the settings that it chose with what they rest on.

What a call has chosen is stored with the study, so that the same call returns it even if the study has been continued.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
import sqlalchemy
from sqlalchemy import column, insert
from sqlalchemy.exc import IntegrityError

from tuning import report
from tuning.finalists import Finalist, finalists
from tuning.optuna_study import Study
from tuning.pipeline import open_studies, tune
from tuning.study_config import StudyConfig
from tuning.study_status import PREFIX, connect, exists, names
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan
from whichlora.scheduling.retries import with_retries
from whichlora.tracking.runs import Tracker

_ATTRIBUTES = sqlalchemy.table("study_user_attributes", *map(column, ("study_id", "key", "value_json")))
"""Optuna's table of the user attributes of studies."""
MOST_TRIALS = 10**6
"""Trials of a study that only a budget limits."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """The settings that a study has chosen for a variant, and what they rest on.

    Attributes:
        config: the fixed part of the study.
        study: its name.
        run_id: its run in MLflow.
        finalists: the points that were trained again with fresh seeds, with their scores.
        best: the finalist with the best mean over the fresh seeds; None if scores are missing or all diverged.
        seconds: device-seconds of the trials.
        missing: what is missing, if anything, a message each.
    """

    config: StudyConfig
    study: str
    run_id: str
    finalists: Sequence[Finalist]
    best: Finalist | None
    seconds: float
    missing: Sequence[str]

    @property
    def arm(self) -> dict[str, Any] | None:
        """The best point as an arm of an experiment's file, with its source; None without one."""
        return None if self.best is None else report.arm(self.config, self.study, self.best)

    @property
    def undecided(self) -> dict[str, str]:
        """Which edge of the space the best point is on, "lower" or "upper", by dimension."""
        return {} if self.best is None or self.best.recommended else self.config.space.edges(self.best.point)

    @property
    def fresh_seconds(self) -> float:
        """Seconds of the trainings with fresh seeds."""
        return sum(finalist.seconds for finalist in self.finalists)

    def plan(self, seed: int) -> Plan:
        """Return the plan of a run of the best point with a seed.

        Raises:
            ValueError: there is no best point.
        """
        return self._chosen().plan(self.config, seed)

    def run(self, seed: int) -> tuple[RunOptions, dict[str, Any]]:
        """Return the options of a run of the best point with a seed, and the settings that are the variant's own.

        Raises:
            ValueError: there is no best point.
        """
        return self._chosen().run(self.config, seed)

    def _chosen(self) -> Finalist:
        if self.best is None:
            raise ValueError(f"{self.study} has no best point")
        return self.best


def tune_variants(
    configs: Sequence[StudyConfig],
    tracker: Tracker,
    *,
    command: str,
    trials: int | None = None,
    budget: float | None = None,
    pack: int = 1,
    keep_adapters: str = "all",
) -> list[Tuned]:
    """Open or resume studies, tune in this process together with any others, and return the settings chosen.

    Every variant gets the same number of trials, or the same device-seconds: of two studies, the one that has used less
    goes first. Safe to repeat: finished trials are reused, and what was chosen remains so (see `chosen`). With `trials`
    alone the result of a killed and resumed call is that of an uninterrupted one; a budget in seconds ends after as
    many trials as fit.

    Args:
        configs: the fixed part of each study, such as `tuning.tune.study_configs` returns.
        tracker: of the MLflow experiment that gets the runs.
        command: the command that resumes them.
        trials: complete and pruned trials of each study; with rungs, their cost in trainings on all items. None for no
            limit besides the budget.
        budget: device-seconds of the trials of each study, without those of the trainings with fresh seeds.
        pack: number of trials to train at once.
        keep_adapters: the trials of which the adapters are kept, one of `KEEP`.

    Raises:
        OptionError: a study has no valid runs.
        ValueError: neither trials nor a budget are given.
    """
    if trials is None and budget is None:
        raise ValueError("trials or budget must be given")
    for config in configs:
        config.check()
    found = chosen(configs, trials=trials, budget=budget)
    left = [config for config, known in zip(configs, found, strict=True) if known is None]
    if not left:
        return [known for known in found if known is not None]
    studies = open_studies(left, tracker, command=command, keep_adapters=keep_adapters)
    try:
        _, missing = tune(studies, tracker, trials=trials or MOST_TRIALS, budget=budget, pack=pack)
    except KeyboardInterrupt:
        for study in studies:
            study.mark_interrupted()
        raise
    new = iter(with_retries(lambda: [_tuned(study, missing) for study in studies]))
    tuned = [next(new) if known is None else known for known in found]
    with_retries(lambda: _store([each for each in tuned if each.best is not None and not each.missing], trials, budget))
    return [known or each for known, each in zip(chosen(configs, trials=trials, budget=budget), tuned, strict=True)]


def chosen(configs: Sequence[StudyConfig], *, trials: int | None, budget: float | None) -> list[Tuned | None]:
    """Return what earlier calls of `tune_variants` with these trials and budget have chosen; None for unfinished ones.

    Nothing is written, so that users who can only read the database can call it.
    """

    def read() -> list[Tuned | None]:
        if not exists():
            return [None] * len(configs)
        database = connect()
        stored = set(names(database))
        return [
            _restored(config, optuna.load_study(study_name=PREFIX + name, storage=database).user_attrs.get(key))
            if (name := config.name()) in stored
            else None
            for config in configs
        ]

    key = _key(trials, budget)
    return with_retries(read)


def _tuned(study: Study, missing: Sequence[str]) -> Tuned:
    """Return what a study has come to."""
    scored = finalists(study)
    own = [message for message in missing if message.startswith(f"{study.name}: ")]
    if study.stopped():
        own.append(f"{study.name}: it was stopped before its budget was used")
    return Tuned(
        config=study.config,
        study=study.name,
        run_id=study.run_id,
        finalists=scored,
        best=report.winner(scored),
        seconds=study.seconds(),
        missing=own,
    )


def _key(trials: int | None, budget: float | None) -> str:
    """Return the user attribute of a study that holds what a call has chosen."""
    return f"chosen/{trials}/{budget}"


def _store(tuned: Sequence[Tuned], trials: int | None, budget: float | None) -> None:
    """Store what was chosen, unless another process has done so.

    Optuna's own method overwrites what was stored since it was looked for. Here the database decides: an attribute is
    unique in its study, so that of several processes the first one stores, and the others read what it has chosen.
    """
    database = connect()
    for each in tuned:
        study_id = database.get_study_id_from_name(PREFIX + each.study)
        values = {"run_id": each.run_id, "seconds": each.seconds, "best": each.best and each.best.origin}
        text = json.dumps({**values, "finalists": [asdict(f) for f in each.finalists]})
        row = {"study_id": study_id, "key": _key(trials, budget), "value_json": text}
        with contextlib.suppress(IntegrityError), database.engine.begin() as connection:
            connection.execute(insert(_ATTRIBUTES).values(row))


def _restored(config: StudyConfig, stored: dict[str, Any] | None) -> Tuned | None:
    """Return what `_store` has stored; None if there is nothing."""
    if stored is None:
        return None
    scored = [Finalist(**values) for values in stored["finalists"]]
    return Tuned(
        config=config,
        study=config.name(),
        run_id=stored["run_id"],
        finalists=scored,
        best=next(finalist for finalist in scored if finalist.origin == stored["best"]),
        seconds=stored["seconds"],
        missing=(),
    )
