"""What the experiments hold and what they lack: nothing is left out of an analysis without being listed here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd

from analysis.runs.methods import UNTRAINED


class Issue(NamedTuple):
    """A run that does not count, or counts once with others, and why."""

    run_id: str
    name: str
    text: str


class Missing(NamedTuple):
    """Seeds that a method lacks in one cell of the design, out of those that the setting has."""

    setting: str
    method: str
    language: str
    tl_ratio: float
    seeds: tuple[int, ...]
    total: int


@dataclass(frozen=True, kw_only=True)
class Design:
    """What was found.

    Attributes:
        others: MLflow runs that are no results, by kind: launches, base models, trials.
        runs: MLflow runs of kind `run`, whatever became of them.
        used: ids of the runs that the analysis of F1 stands on.
        injected: ids of the runs of lexical injection, which have similarities in place of F1.
        adapters: distinct adapters among those.
        shared_english: runs whose English result is another run's: one adapter, several target languages.
        failed, unfinished, incomplete: runs without a usable result.
        duplicates: finished runs of which another one is used.
        merged: sentences about methods that are one.
        missing: cells of the full design without all of its seeds.
        notes: sentences about uneven values, versions and names.
        synthetic: those of the tasks that are synthetic.
        unpredicted: results whose item-by-item predictions are not there.
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
    synthetic: tuple[str, ...] = ()
    unpredicted: tuple[Issue, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of all runs that the report stands on, but for probes."""
        return (*self.used, *self.injected)

    def with_unpredicted(self, unpredicted: tuple[Issue, ...]) -> Design:
        """Return the same with the results that have no predictions."""
        return replace(self, unpredicted=unpredicted)


def missing_cells(frame: pd.DataFrame) -> tuple[Missing, ...]:
    """Return what lacks of every method with every language, ratio and seed of its setting."""
    found = []
    for setting, rows in frame.groupby("setting", sort=True):
        rows = rows[rows["variant"] != UNTRAINED]
        seeds = set(rows["seed"])
        have = rows.groupby(["method", "language", "tl_ratio"])["seed"].agg(set).to_dict()
        axes = (sorted(set(rows[key])) for key in ("method", "language", "tl_ratio"))
        for method, language, ratio in itertools.product(*axes):
            lacks = sorted(seeds - have.get((method, language, ratio), set()))
            if lacks:
                found.append(Missing(str(setting), method, language, ratio, tuple(map(int, lacks)), len(seeds)))
    return tuple(found)
