"""Compares the answers to a task that was not trained with those of the base model: `... kept_answers EXPERIMENT`.

    MLFLOW_TRACKING_URI=sqlite:///mlflow.db python -m benchmarks.kept_answers early-layers-xnli

For each method of an experiment whose runs have the option `retention`: the share of items with the same answer as the
base model, and the change of accuracy; then the differences between two methods. Brackets are 95 % intervals: over
seeds by Student's t, and over items by a bootstrap of each item's mean over seeds.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Mapping, Sequence

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from numpy.typing import NDArray
from scipy import stats

from whichlora.tracking.client import connect

_DRAWS = 10_000
Values = NDArray[np.float64]
"""Shape (seeds, items)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="kept_answers", description="Compare answers with those of the base model.")
    parser.add_argument("experiment", help="name of an experiment whose runs have the option retention")
    experiment = parser.parse_args(arguments).experiment
    connect()
    runs = _finished(experiment, "run")
    bases = {_role(run): _answers(run, _role(run)) for run in _finished(experiment, "base") if _retained(run, runs)}
    methods = {name: _values(chosen, bases) for name, chosen in _by_method(runs).items()}
    for name, values in methods.items():
        for measure, table in values.items():
            print(f"{name}, {measure}: {_with_intervals(table)}")
    for (one, first), (other, second) in itertools.combinations(methods.items(), 2):
        for measure in first:
            if first[measure].shape == second[measure].shape:
                print(f"{one} minus {other}, {measure}: {_with_intervals(first[measure] - second[measure])}")
    return 0


def _finished(experiment: str, kind: str) -> list[Run]:
    filters = f"tags.`whichlora.kind` = '{kind}' AND attributes.status = 'FINISHED'"
    found = mlflow.search_runs(experiment_names=[experiment], filter_string=filters, output_format="list")
    return sorted(found, key=lambda run: int(run.data.params.get("seed", 0)))


def _retained(base: Run, runs: Sequence[Run]) -> bool:
    return base.data.params["task"] not in {run.data.params["task"] for run in runs}


def _role(base: Run) -> str:
    return "en" if base.data.params["language"] == "en" else "tl"


def _by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    methods: dict[str, list[Run]] = {}
    for run in runs:
        params = run.data.params
        methods.setdefault(f"{params['variant']} at {params['learning_rate']}", []).append(run)
    return methods


def _answers(run: Run, path: str) -> pd.DataFrame:
    """Return a table of predictions with the columns `gold` and `predicted`, by item."""
    place = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=f"predictions/{path}.parquet")
    return pd.read_parquet(place).set_index("id")


def _values(runs: Sequence[Run], bases: Mapping[str, pd.DataFrame]) -> dict[str, Values]:
    values: dict[str, list[pd.Series[float]]] = {}
    for run, (role, base) in itertools.product(runs, bases.items()):
        own = _answers(run, f"retention/{role}")
        before = base.loc[own.index]
        change = (own["gold"] == own["predicted"]).astype(float) - (before["gold"] == before["predicted"])
        values.setdefault(f"{role}, gain", []).append(change)
        values.setdefault(f"{role}, same answer", []).append((own["predicted"] == before["predicted"]).astype(float))
    return {name: np.array(rows) for name, rows in values.items()}


def _with_intervals(values: Values) -> str:
    """Return the mean of values by seed and item with its intervals over seeds and over items."""
    seeds, items = values.mean(axis=1), values.mean(axis=0)
    half = stats.t.ppf(0.975, len(seeds) - 1) * seeds.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else np.nan
    drawn = items[np.random.default_rng(0).integers(len(items), size=(_DRAWS, len(items)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    by_seed = f"{seeds.mean() - half:.3f} to {seeds.mean() + half:.3f}"
    return f"{values.mean():.3f} ({by_seed}; {low:.3f} to {high:.3f}), {len(seeds)} seeds, {len(items)} items"


if __name__ == "__main__":
    sys.exit(main())
