"""Reads the runs of a comparison seed by seed, and judges the methods by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from analysis.naming import DEFAULT_HEADLINE
from analysis.robustness.collapse import collapsed
from analysis.runs.pull import row_of
from analysis.runs.tidy import required_columns, tidy
from analysis.stats.cells import BLOCK_COLUMNS
from analysis.stats.sequential.verdict import Verdict, judge, seed_scores
from comparing.comparison import Comparison
from whichlora.config.plan import Plan
from whichlora.tracking.client import find_experiment, search_all

OUTCOMES: Mapping[str, tuple[str, ...]] = {"en": ("en",), "tl": ("tl",), "mean": ("en", "tl")}
DIVERGED = "diverged"
"""Column of the rows of runs that diverged, which have no scores of their own."""
_ERROR = "NonFiniteError"


class Results:
    """What the runs of a comparison show so far, a function of the runs alone.

    Attributes:
        scores: one row per seed whose runs are all there, one column per method, in points.
        flags: which runs collapsed, of the same shape; see `_collapsed`.
        rows: the runs that count, each as a row for `analysis.runs.tidy.tidy`, by method.
        runs: the MLflow runs that count, by fingerprint.
        diverged: fingerprints of all runs of the experiment that diverged, and would do so again.
        every: all runs of the experiment.
    """

    def __init__(self, comparison: Comparison, experiment: str) -> None:
        self.comparison, self._experiment = comparison, experiment
        empty = pd.DataFrame(columns=list(comparison.methods), dtype=float)
        self.scores, self.flags = empty, empty.astype(bool)
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.runs: dict[str, Run] = {}
        self.diverged: frozenset[str] = frozenset()
        self.every: list[Run] = []
        self._limit: int | None = None
        self.verdict = self.judge()

    def update(self, client: MlflowClient, *, beyond: bool = False) -> Verdict:
        """Read what has been added, and judge again.

        Args:
            beyond: whether seeds count that were run after every method was decided; they change no verdict.
        """
        found = find_experiment(client, self._experiment)
        if found is None:
            return self.verdict
        names = {found.experiment_id: found.name}
        ended, self.every = _by_fingerprint(
            search_all(client.search_runs, list(names), "tags.`whichlora.kind` = 'run'")
        )
        self.diverged = frozenset(name for name, run in ended.items() if diverged(run))
        for seed in self.comparison.rule.rounds[len(self.scores) :]:
            methods = self.next_methods(beyond=beyond)
            plans = self.comparison.plans(seed, methods)
            wanted = [(method, plan) for method in methods for plan in plans[method]]
            if not wanted or any(plan.spec.fingerprint not in ended for _, plan in wanted):
                break
            self._add(seed, [(method, plan, ended[plan.spec.fingerprint]) for method, plan in wanted], names)
            self.verdict = self.judge()
        return self.verdict

    def next_methods(self, *, beyond: bool = False) -> tuple[str, ...]:
        """Return the methods that run the next seed; `beyond` the verdict, those that were not dropped."""
        if self.verdict.finished and beyond:
            return tuple(s.method for s in self.verdict.standings if s.state != "dropped")
        return self.verdict.next_methods

    def afford(self, rounds: int | None) -> None:
        """Set the number of further rounds that the budget pays for; None if it is not limited or not known."""
        self._limit = None if rounds is None else len(self.scores) + rounds
        self.verdict = self.judge()

    @property
    def limited(self) -> bool:
        """Whether the budget is expected to end before `max_seeds`."""
        return self._limit is not None and self._limit < self.comparison.rule.max_seeds

    def judge(self, *, primary: str | None = None, language: str | None = None, affordable: bool = True) -> Verdict:
        """Judge the methods.

        Args:
            primary: another outcome than that of the rule.
            language: one language alone, as one of a family of all of them.
            affordable: whether what can still be shown depends on the budget (see `afford`).
        """
        rule, scores, flags = self.comparison.rule, self.scores, self.flags
        families = 1
        if language is not None or primary is not None:
            table = self.table()
            if language is not None:
                families = len(languages_of(table))
                table = table[table["language"] == language]
            scores, flags = self._scores(table, primary or rule.primary), self._flags(table, primary or rule.primary)
        return judge(
            scores,
            margin=rule.margin,
            max_seeds=rule.max_seeds,
            confidence=rule.confidence,
            collapsed=flags,
            families=families,
            resolution=self.comparison.resolution(language),
            affordable=self._limit if affordable else None,
        )

    def table(self) -> pd.DataFrame:
        """Return the tidy table of the runs that count, with the methods of the comparison."""
        return _table(self.rows)

    def _add(self, seed: int, found: Sequence[tuple[str, Plan, Run]], names: Mapping[str, str]) -> None:
        rows = [(method, _row(run, names)) for method, _, run in found]
        self.rows += rows
        self.runs |= {plan.spec.fingerprint: run for _, plan, run in found}
        table, primary = _table(rows), self.comparison.rule.primary
        scores, flags = self._scores(table, primary), self._flags(table, primary)
        self.scores = pd.concat([self.scores, scores]) if len(self.scores) else scores
        self.flags = pd.concat([self.flags, flags]) if len(self.flags) else flags
        assert list(self.scores.index)[-1] == seed

    def _scores(self, table: pd.DataFrame, primary: str) -> pd.DataFrame:
        return seed_scores(table, primary=primary).reindex(columns=list(self.comparison.methods))

    def _flags(self, table: pd.DataFrame, primary: str) -> pd.DataFrame:
        flags = _collapsed(table, OUTCOMES[primary])
        seeds = pd.Index(sorted(set(table["seed"])), name="seed")
        return flags.reindex(index=seeds, columns=list(self.comparison.methods)).eq(True)


def languages_of(table: pd.DataFrame) -> list[str]:
    """Return the target languages of a tidy table."""
    return sorted(set(table["language"]) - {""})


def diverged(run: Run) -> bool:
    """Return whether a run ended because a loss, a gradient or a score was not finite, which it would do again."""
    error = run.data.tags.get("whichlora.error", "")
    return run.info.status == "FAILED" and str(error).startswith(_ERROR)


def _by_fingerprint(found: Iterable[Run]) -> tuple[dict[str, Run], list[Run]]:
    """Return the newest finished run of each fingerprint, else the one that diverged, and all runs."""
    ended: dict[str, Run] = {}
    every = sorted(found, key=lambda run: (run.info.end_time or 0, run.info.run_id))
    for run in every:
        fingerprint = run.data.tags.get("whichlora.fingerprint", "")
        known = ended.get(fingerprint)
        if run.info.status == "FINISHED" or (diverged(run) and (known is None or diverged(known))):
            ended[fingerprint] = run
    return ended, every


def _row(run: Run, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a run as a row for `tidy`; one that diverged has learned nothing, and scores 0."""
    row = row_of(run, names)
    if diverged(run):
        headline = row.get("headline") or DEFAULT_HEADLINE
        scores = {name: 0.0 for name in required_columns(row) if name.endswith(f"/{headline}")}
        row = {**row, **scores, "status": "FINISHED", "defects": "", DIVERGED: True}
    return row


def _table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> pd.DataFrame:
    methods = {row["run_id"]: method for method, row in rows}
    table = tidy(pd.DataFrame([row for _, row in rows]), experiments=(), others={}).table
    return table.assign(method=table["run_id"].map(methods))


def _collapsed(table: pd.DataFrame, outcomes: Sequence[str]) -> pd.DataFrame:
    """Return by seed and method whether a run learned nothing that another one of its seed and block has learned.

    The rule for a run is that of the report. Where no method is above the floor nothing can be learned, which is no
    collapse; this is seen within the seed, so that later seeds do not change what an earlier one has shown.
    """
    parts = []
    for outcome in outcomes:
        frame = collapsed(table, outcome, {})
        if len(frame):
            block = [frame[column] for column in ("seed", *BLOCK_COLUMNS) if column in frame]
            learned = (~frame["collapsed"]).groupby(block, dropna=False).transform("any")
            parts.append(frame.assign(collapsed=frame["collapsed"] & learned))
    if DIVERGED in table:
        frame = table[table["outcome"].isin(outcomes)]
        parts.append(frame.assign(collapsed=frame[DIVERGED].eq(True)))
    if not parts:
        return pd.DataFrame()
    return pd.concat(parts).groupby(["seed", "method"])["collapsed"].any().unstack("method")
