"""Fetches the training loss curves of one cell per setting; each run costs a query, so not all runs are fetched."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from mlflow.tracking import MlflowClient

from analysis.runs.methods import method_order

METRIC = "train/loss"
MOST_SEEDS = 3


def fetch(client: MlflowClient | None, table: pd.DataFrame) -> dict[str, dict[str, list[pd.Series]]]:
    """Return the loss of up to three seeds, indexed by step, by cell (as text) and method.

    The cell of a setting is the one with the most methods; ties go to the highest ratio, then the first language.
    Results from files have no curves.
    """
    curves: dict[str, dict[str, list[pd.Series]]] = {}
    if client is None or METRIC not in table:
        return curves
    tracked = table["artifact_uri"] != ""
    target = table[(table["outcome"] == "tl") & table[METRIC].notna() & tracked]
    for setting, rows in target.groupby("setting", sort=True):
        sizes = rows.groupby(["language", "tl_ratio"])["method"].nunique().reset_index()
        best = sizes.sort_values(["method", "tl_ratio", "language"], ascending=[False, False, True]).iloc[0]
        cell = rows[(rows["language"] == best["language"]) & (rows["tl_ratio"] == best["tl_ratio"])]
        by_method = cell.groupby("method")["seed"].agg(set)
        seeds = sorted(set.intersection(*by_method) or set(cell["seed"]))[
            :MOST_SEEDS
        ]  # seeds that all methods have, if any
        cell = cell[cell["seed"].isin(seeds)].sort_values("seed")
        with ThreadPoolExecutor(4) as pool:
            series = list(pool.map(lambda run_id: _loss(client, run_id), cell["run_id"]))
        losses: dict[str, list[pd.Series]] = {method: [] for method in method_order(cell)}
        for method, loss in zip(cell["method"], series, strict=True):
            losses[method] += [loss] if len(loss) > 1 else []
        seed_text = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        title = f"{setting}, {best['language']}, {100 * best['tl_ratio']:g} % target items, {seed_text}."
        curves[title] = {method: runs for method, runs in losses.items() if runs}
    return curves


def _loss(client: MlflowClient, run_id: str) -> pd.Series:
    points = {point.step: point.value for point in client.get_metric_history(run_id, METRIC)}
    return pd.Series(points, dtype=float).sort_index()
