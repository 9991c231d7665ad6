"""Prints the end of tuning for the terminal: the best trials, what to type next, and costs and results by variant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tuning import report
from tuning.finalists import Finalist
from tuning.optuna_study import Study
from tuning.space import SEARCHED, describe_point
from whichlora.config.cli import next_commands
from whichlora.config.options import RUN_OPTIONS
from whichlora.text_tables import POINTS, table

_BEST_TRIALS = 5
_OPTIONAL = (
    *("drop over learning rates", "pruned", "seconds, fresh seeds", "seconds, trials", "recommended arm, fresh seeds"),
    *("best in the study, points", "trials"),
)


def outcome(
    studies: Sequence[tuple[Study, Sequence[Finalist]]], *, experiment: str, summary: str, width: int | None
) -> str:
    """Return the text printed after tuning.

    Args:
        studies: each study with its finalists.
        summary: the Markdown table of `report.summary`, which stands at the end where there is no terminal: a log file
            is copied from.
        width: number of cells in a line; None if there is no terminal.
    """
    trials = [_best_trials(study, width) for study, _ in studies if study.on_all_items()]
    following = "\n".join([next_commands(experiment, use="export"), *_runs_of_the_best(studies)])
    if width is None:
        return "\n".join([*trials, following, summary])
    rows = [report.HEAD, *(report.summary_row(*entry) for entry in studies)]
    notes = [note for entry in studies for note in report.notes(*entry)]
    return "\n".join([*trials, table(rows, width=width, optional=_OPTIONAL), *notes, following])


def _best_trials(study: Study, width: int | None) -> str:
    """Return the trials with the highest values."""
    frame = report.in_rung(report.trials_table(study), study.config.rungs.top)
    best = frame.sort_values("value", ascending=False, kind="stable").head(_BEST_TRIALS)
    rows = [("trial", "state", "points", "seconds", "settings")]
    points = {trial.number: describe_point(trial.params) for trial in study.counted()}
    for number, state, value, seconds in best[["trial", "state", "value", "seconds"]].itertuples(index=False):
        rows.append((str(number), str(state), POINTS.text(value), f"{seconds or 0:.0f}", points[number]))
    size = f" on all {study.config.train_size} items" if study.config.rungs.halving else ""
    return (
        f"Best of {len(frame)} trials{size} of {study.name}:\n{table(rows, width=width, optional=('state', 'seconds'))}"
    )


def _runs_of_the_best(studies: Sequence[tuple[Study, Sequence[Finalist]]]) -> list[str]:
    """Return the command that trains and scores the best point of each study, if options can express it."""
    lines = []
    for study, finalists in studies:
        best = report.winner(finalists)
        if best is None or not (best.recommended or best.point.keys() <= set(SEARCHED)):
            continue
        seed = int(RUN_OPTIONS["seed"][0])
        values = vars(best.plan(study.config, seed).options) | {"variant": None}  # which is always given
        given = {name: str(v) for name, v in values.items() if v is not None and str(v) != RUN_OPTIONS[name][0]}
        texts = [text for name, value in given.items() for text in (f"--{name}", value)]
        command = shlex.join(["whichlora", "run", "--variant", study.config.variant.name, *texts])
        lines.append(f"  {command}  # the best")
    return lines
