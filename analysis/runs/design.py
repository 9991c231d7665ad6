"""Describes the runs that were found and missing: every run excluded from the analysis is listed here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from textwrap import shorten
from typing import NamedTuple

import pandas as pd

from analysis.runs.methods import UNTRAINED

DONE_SINCE = "; done since by another run"
"""The end of the text of an issue with a run whose result another run has."""


class Issue(NamedTuple):
    """A run that is excluded, or counted once together with others, and the reason."""

    run_id: str
    name: str
    text: str


class Missing(NamedTuple):
    """The seeds that a method lacks in one cell of the design, out of the `total` that the setting has."""

    setting: str
    method: str
    language: str
    tl_ratio: float
    seeds: tuple[int, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Design:
    """The runs of the experiments, used and excluded.

    Attributes:
        others: number of MLflow runs that are not results, by kind: launches, base models, trials.
        runs: number of MLflow runs of kind `run`, of any status, and of results in files.
        used: ids of the runs in the analysis of F1.
        injected: ids of the lexical injection runs, which have similarities instead of F1.
        adapters: number of distinct adapters among `used`.
        shared_english: number of runs that share their English result with another run: one adapter, several target
            languages.
        failed, unfinished, incomplete: runs without a usable result.
        duplicates: finished runs that were superseded by another run.
        merged: sentences about methods that are identical and counted as one.
        missing: cells of the full design that lack seeds.
        notes: sentences about mixed values, versions and names.
        cautions: sentences about runs that disagree or cannot be compared as they are.
        synthetic: the synthetic ones among the tasks.
        unpredicted: results without readable item-level predictions.
        groups: the methods, see `groups_by_cells`; those of two groups are not compared.
        single: the only method of each setting in which nothing can be compared, see `single_methods`.
        files: SHA-256 of every file that results are from, by its path; `tables` are the CSV files among them.
    """

    experiments: tuple[str, ...]
    others: Mapping[str, int]
    runs: int
    failed: tuple[Issue, ...]
    unfinished: tuple[Issue, ...]
    incomplete: tuple[Issue, ...]
    used: tuple[str, ...] = ()
    injected: tuple[str, ...] = ()
    adapters: int = 0
    shared_english: int = 0
    duplicates: tuple[Issue, ...] = ()
    merged: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    synthetic: tuple[str, ...] = ()
    unpredicted: tuple[Issue, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    single: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of all runs that the report uses, except probes."""
        return (*self.used, *self.injected)

    def with_unpredicted(self, unpredicted: tuple[Issue, ...]) -> Design:
        """Return a copy that lists the results without predictions."""
        return replace(self, unpredicted=unpredicted)

    def with_files(
        self, digests: Mapping[str, str], tables: tuple[str, ...], duplicates: tuple[Issue, ...], notes: tuple[str, ...]
    ) -> Design:
        """Return a copy that lists the files that results are from, and what is repeated or not known in them."""
        return replace(
            self,
            files=digests,
            tables=tables,
            duplicates=(*self.duplicates, *duplicates),
            notes=(*notes, *self.notes),
        )

    def left_out(self) -> tuple[str, ...]:
        """Return a sentence for each reason why results are left out, are not compared, or are not verified."""
        sentences = [
            _listed(self.failed, "failed"),
            _listed(self.unfinished, "not finished"),
            _listed(self.incomplete, "without a usable result"),
            _listed(self.duplicates, "of which another one is used"),
            *(
                f"In {name} only {method} has results: nothing is compared there."
                for name, method in self.single.items()
            ),
        ]
        if len(self.groups) > 1:
            names = "; ".join(", ".join(group) for group in self.groups)
            sentences.append(f"Not compared, because they share no cell of setting, language and ratio: {names}.")
        if self.tables:
            foreign = sum(run.startswith(tuple(f"{table}:" for table in self.tables)) for run in self.used)
            subject = "All results" if foreign == len(self.used) else f"{foreign} of {len(self.used)} results"
            sentences.append(
                f"{subject} are from {', '.join(self.tables)}: data, prompts, training and tuning are not verified."
            )
        return tuple(filter(None, sentences))


def _listed(issues: tuple[Issue, ...], kind: str, most: int = 3, length: int = 160) -> str:
    """Return a sentence with the number of runs whose result is left out, and the first ones by name; "" if none."""
    issues = tuple(issue for issue in issues if not issue.text.endswith(DONE_SINCE))
    if not issues:
        return ""
    count = "1 run is" if len(issues) == 1 else f"{len(issues)} runs are"
    reasons = "; ".join(f"{issue.name} ({shorten(issue.text, length, placeholder=' ...')})" for issue in issues[:most])
    rest = f"; and {len(issues) - most} more" if len(issues) > most else ""
    return f"{count} left out, {kind}: {reasons}{rest}."


def groups_by_cells(frame: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """Return the methods in groups, largest first: methods of two groups share no cell of setting, language and ratio.

    Two methods of a group share a cell, or each does with a third one.
    """
    trained = frame[frame["variant"] != UNTRAINED]
    groups: list[set[str]] = []
    for methods in trained.groupby(["setting", "language", "tl_ratio"], sort=True)["method"].agg(set):
        linked = [group for group in groups if group & methods]
        groups = [group for group in groups if not group & methods] + [methods.union(*linked)]
    return tuple(sorted((tuple(sorted(group)) for group in groups), key=lambda group: (-len(group), group)))


def single_methods(frame: pd.DataFrame) -> dict[str, str]:
    """Return by setting its only method, for the settings among several that have one method only."""
    trained = frame[frame["variant"] != UNTRAINED]
    by_setting = trained.groupby("setting", sort=True)["method"].agg(set)
    return {str(name): next(iter(found)) for name, found in by_setting.items() if len(found) == 1 < len(by_setting)}


def missing_cells(frame: pd.DataFrame) -> tuple[Missing, ...]:
    """Return the missing cells of the full design: every method with every language, ratio and seed of its setting."""
    cells = []
    for setting, rows in frame.groupby("setting", sort=True):
        rows = rows[rows["variant"] != UNTRAINED]
        seeds = set(rows["seed"])
        available = rows.groupby(["method", "language", "tl_ratio"])["seed"].agg(set).to_dict()
        axes = (sorted(set(rows[key])) for key in ("method", "language", "tl_ratio"))
        for method, language, ratio in itertools.product(*axes):
            missing = sorted(seeds - available.get((method, language, ratio), set()))
            if missing:
                cells.append(Missing(str(setting), method, language, ratio, tuple(map(int, missing)), len(seeds)))
    return tuple(cells)
