"""Tests whether F1 differs between bf16 and fp32 by more than between seeds, from runs in both precisions.

python -m benchmarks.precision --experiments pocket,pocket-fp32
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import pandas as pd
from scipy import stats

_CELL = ["method", "task", "model", "language", "tl_ratio", "outcome"]


def pair_runs(table: pd.DataFrame) -> pd.DataFrame:
    """Return F1 in points in bf16 and fp32 of every run that exists in both, one row per run and outcome.

    Args:
        table: `analysis.runs.tidy.Runs.table`.

    Raises:
        ValueError: a method has two runs with the same precision, seed and cell.
    """
    wide = table.assign(f1=100 * table["f1"]).pivot(index=[*_CELL, "seed"], columns="precision", values="f1")
    return wide.reindex(columns=["bf16", "fp32"]).dropna().reset_index()


def compare(pairs: pd.DataFrame) -> pd.DataFrame:
    """Compare the precisions: return one row per method and outcome, in points of F1.

    The columns are n (pairs), bf16 and fp32 (means), difference (bf16 minus fp32), seeds (standard deviation over seeds
    within a precision and cell, pooled), expected (95 % bound on the difference of two sets of n runs that differ in
    their seeds alone: Student's t with that deviation), within (whether the difference is no larger).
    """
    rows = []
    for (method, outcome), part in pairs.groupby(["method", "outcome"]):
        cells = part.groupby(_CELL)
        df = 2 * int((cells.size() - 1).sum())
        squares = sum(((part[p] - cells[p].transform("mean")) ** 2).sum() for p in ("bf16", "fp32"))
        seeds = math.sqrt(squares / df) if df else math.nan
        expected = float(stats.t.ppf(0.975, df)) * seeds * math.sqrt(2 / len(part)) if df else math.nan
        difference = float((part["bf16"] - part["fp32"]).mean())
        rows.append(
            {
                "method": method,
                "outcome": outcome,
                "n": len(part),
                "bf16": part["bf16"].mean(),
                "fp32": part["fp32"].mean(),
                "difference": difference,
                "seeds": seeds,
                "expected": expected,
                "within": abs(difference) <= expected,
            }
        )
    return pd.DataFrame(rows)


def summary(pairs: pd.DataFrame) -> str:
    """Return the comparison as a Markdown table, followed by the mean difference over all runs with its interval."""
    numbers = ("bf16", "fp32", "difference", "seeds", "expected")
    lines = ["| method | F1 on | n | bf16 | fp32 | bf16 - fp32 | SD over seeds | expected by seeds | within |"]
    lines.append("|---" * 9 + "|")
    for row in compare(pairs).to_dict("records"):
        verdict = "-" if math.isnan(row["expected"]) else "yes" if row["within"] else "no"
        texts = [row["method"], row["outcome"], row["n"], *(f"{row[name]:.1f}" for name in numbers), verdict]
        lines.append("| " + " | ".join(map(str, texts)) + " |")
    lines.append("")
    for outcome, part in pairs.groupby("outcome"):
        differences = part["bf16"] - part["fp32"]
        low, high = stats.ttest_1samp(differences, 0).confidence_interval()
        half = (high - low) / 2
        lines.append(f"{outcome}: {differences.mean():+.2f} +- {half:.2f} points over all {len(differences)} pairs.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the runs of the experiments and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", default="pocket,pocket-fp32", help="comma-separated names")
    args = parser.parse_args(arguments)
    from analysis.runs.pull import pull
    from whichlora.tracking.client import connect
    from whichlora.tracking.lookup import find_experiments

    client = connect()
    print(summary(pair_runs(pull(client, find_experiments(client, args.experiments)).table)))


if __name__ == "__main__":
    main()
