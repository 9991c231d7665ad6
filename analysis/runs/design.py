"""Describes the runs that were found and missing: every run excluded from the analysis is listed here."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd

from analysis.runs.methods import UNTRAINED


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
        runs: number of MLflow runs of kind `run`, of any status.
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

    @property
    def sources(self) -> tuple[str, ...]:
        """The ids of all runs that the report uses, except probes."""
        return (*self.used, *self.injected)

    def with_unpredicted(self, unpredicted: tuple[Issue, ...]) -> Design:
        """Return a copy that lists the results without predictions."""
        return replace(self, unpredicted=unpredicted)


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
