"""Computes derived scores: gain, retention, transfer, forgetting, cost, agreement and calibration.

Each function takes the tidy table (or the items) and returns a frame with one row per run, method or pair. Scores and
differences are in F1 points. If the needed columns or runs are missing, the frame is empty.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.measures.shallow_baselines import best_floor
from analysis.stats.cells import pairs, rows
from analysis.stats.paired import collect

RUN = ("setting", "task", "model", "method", "language", "tl_ratio", "seed")
"""Columns that identify a run."""
BINS = 15
"""Number of confidence bins."""


def gain(table: pd.DataFrame, *, outcome: str) -> pd.DataFrame:
    """Return test minus base F1, one row per run; needs the column `base_f1`."""
    frame = rows(table, outcome)
    if "base_f1" not in frame:
        return _empty()
    return _per_run(frame.assign(value=frame["value"] - 100 * frame["base_f1"]))


def above_floor(table: pd.DataFrame, *, outcome: str) -> pd.DataFrame:
    """Return test F1 minus the run's best floor, one row per run; needs columns such as `floor/en/overlap`."""
    frame = best_floor(table, outcome)
    return _per_run(frame.assign(value=frame["value"] - frame["floor"])) if len(frame) else _empty()


def retention(table: pd.DataFrame) -> pd.DataFrame:
    """Return English F1 minus that at ratio 0 of the same method and seed, one row per run with target items."""
    return _minus_ratio_zero(rows(table, "en"), "en")


def transfer_gap(table: pd.DataFrame) -> pd.DataFrame:
    """Return English minus target-language F1, one row per run."""
    english, target = _english_by_language(table), rows(table, "tl")
    if english.empty or target.empty:
        return _empty()
    key = [c for c in RUN if c in target]
    both = target.merge(english[[*key, "value"]], on=key, suffixes=("", "_en"))
    return _per_run(both.assign(value=both["value_en"] - both["value"]))


def forgetting(table: pd.DataFrame, *, before: str, after: str) -> pd.DataFrame:
    """Return the loss on a task that was not trained: base minus run, from two columns (0 to 1)."""
    frame = rows(table, "tl", after)
    if before not in frame:
        return _empty()
    return _per_run(frame.assign(value=100 * (frame[before] - frame[after])))


def gain_per_percent(table: pd.DataFrame) -> pd.DataFrame:
    """Return target F1 minus that at ratio 0 of the same method, language and seed, per percent of target items."""
    frame = _minus_ratio_zero(rows(table, "tl"), "tl")
    return frame if frame.empty else frame.assign(value=frame["value"] / (100 * frame["tl_ratio"]))


def pareto(table: pd.DataFrame, *, outcome: str, cost: str) -> pd.DataFrame:
    """Return each method's mean F1 and mean cost, and whether it is on the Pareto front.

    `cost` is a column such as `adapter/trainable_parameters` or `train/seconds`; runs without it are excluded. Mean F1
    is over runs, mean cost over adapters, because an adapter can serve several runs.
    """
    frame = rows(table, outcome)
    if cost not in frame:
        return pd.DataFrame(columns=["method", "value", "cost", "n", "front"])
    with_cost = frame[frame[cost].notna()]
    means = with_cost.groupby("method", sort=True).agg(value=("value", "mean"), n=("value", "size")).reset_index()
    costs = with_cost.drop_duplicates(["method", "adapter"]).groupby("method")[cost].mean()
    means = means.assign(cost=means["method"].map(costs))
    score, price = means["value"].to_numpy(), means["cost"].to_numpy()
    dominated = [
        bool(np.any((score >= s) & (price <= p) & ((score > s) | (price < p))))
        for s, p in zip(score, price, strict=True)
    ]
    return means.assign(front=np.logical_not(dominated)).sort_values(["cost", "method"], ignore_index=True)


def mean_outcome(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the outcome "mean": the mean of the English and the target F1 of each run's adapter."""
    key = [c for c in ("setting", "task", "model", "method", "tl_ratio", "seed", "adapter") if c in table]
    english = table[table["outcome"] == "en"].groupby(key, dropna=False)["f1"].mean().rename("english")
    target = table[table["outcome"] == "tl"].join(english, on=key)
    return target.assign(outcome="mean", f1=(target["f1"] + target["english"]) / 2).drop(columns="english")


def agreement(items: pd.DataFrame, *, outcome: str) -> pd.DataFrame:
    """Return for each pair of methods the shares of items that both, neither or only one got right, and Cohen's kappa.

    Kappa is that of right and wrong answers. Only items that both methods answered count, and a partial score counts as
    right from 0.5 on.
    """
    answers = collect(items, outcome)
    rows = []
    for a, b in pairs(answers.methods):
        x, y = (answers.scores[:, answers.methods.index(m)] for m in (a, b))
        both_answered = ~(np.isnan(x) | np.isnan(y))
        if not both_answered.any():
            continue
        right, other = x[both_answered] >= 0.5, y[both_answered] >= 0.5
        observed = float(np.mean(right == other))
        chance = float(right.mean() * other.mean() + (1 - right.mean()) * (1 - other.mean()))
        rows.append(
            {
                "first": a,
                "second": b,
                "both": float(np.mean(right & other)),
                "neither": float(np.mean(~right & ~other)),
                "first_only": float(np.mean(right & ~other)),
                "second_only": float(np.mean(~right & other)),
                "agreement": observed,
                "kappa": (observed - chance) / (1 - chance) if chance < 1 else np.nan,
                "n": int(both_answered.sum()),
            }
        )
    names = ["first", "second", "both", "neither", "first_only", "second_only", "agreement", "kappa", "n"]
    return pd.DataFrame(rows, columns=names)


def reliability(items: pd.DataFrame, *, outcome: str, bins: int = BINS) -> pd.DataFrame:
    """Return each method's mean confidence and accuracy in confidence bins of equal width."""
    names = ["method", "bin", "confidence", "correct", "n"]
    if "confidence" not in items or not len(items):
        return pd.DataFrame(columns=names)
    frame = items[(items["outcome"] == outcome) & items["confidence"].notna() & items["correct"].notna()]
    bin_index = np.clip(np.ceil(frame["confidence"].to_numpy(dtype=float) * bins).astype(int) - 1, 0, bins - 1)
    grouped = frame.assign(bin=bin_index).groupby(["method", "bin"], sort=True, observed=True)
    means = grouped.agg(confidence=("confidence", "mean"), correct=("correct", "mean"), n=("correct", "size"))
    return means.reset_index()[names]


def calibration(items: pd.DataFrame, *, outcome: str, bins: int = BINS) -> pd.DataFrame:
    """Return each method's expected calibration error in points (Guo et al. 2017): the mean absolute difference between
    confidence and accuracy over bins, weighted by their number of answers.
    """
    frame = reliability(items, outcome=outcome, bins=bins)
    weighted = frame.assign(away=100 * (frame["correct"] - frame["confidence"]).abs() * frame["n"])
    totals = weighted.groupby("method", sort=True, observed=True)[["away", "n"]].sum().reset_index()
    return totals.assign(value=totals["away"] / totals["n"]).drop(columns="away")[["method", "value", "n"]]


def _minus_ratio_zero(frame: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """Return each run with target items minus the run at ratio 0 of the same method, seed and (for tl) language."""
    if frame.empty:
        return _empty()
    key = [c for c in RUN if c in frame and c != "tl_ratio" and (c != "language" or outcome == "tl")]
    zero = frame[frame["tl_ratio"] == 0].groupby(key, dropna=False)["value"].mean().rename("zero").reset_index()
    both = frame[frame["tl_ratio"] > 0].merge(zero, on=key)
    return _per_run(both.assign(value=both["value"] - both["zero"]))


def _english_by_language(table: pd.DataFrame) -> pd.DataFrame:
    """Return English rows, with shared ones (language "") copied to every language of the method."""
    english, target = rows(table, "en"), rows(table, "tl")
    if english.empty or target.empty:
        return english
    key = [c for c in RUN if c in english and c != "language"]
    shared = english[english["language"] == ""].drop(columns="language").merge(target[[*key, "language"]], on=key)
    return pd.concat([english[english["language"] != ""], shared])


def _per_run(frame: pd.DataFrame) -> pd.DataFrame:
    known = frame[frame["value"].notna()]
    return known[[*(c for c in RUN if c in known), "value"]].reset_index(drop=True)


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=["method", "language", "tl_ratio", "seed", "value"])
