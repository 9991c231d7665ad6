"""Whether F1 depends on the precision by more than it does on the seed, from runs that were made in both.

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
    """Return bf16 and fp32, F1 in points, of every run that there is in both, a row a run and outcome.

    Args:
        table: `analysis.runs.pull.Runs.table`.

    Raises:
        ValueError: a method has two runs of one place.
    """
    wide = table.assign(f1=100 * table["f1"]).pivot(index=[*_CELL, "seed"], columns="precision", values="f1")
    return wide.reindex(columns=["bf16", "fp32"]).dropna().reset_index()


def compare(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each method and outcome, in points of F1.

    Its columns: n (pairs), bf16 and fp32 (means), difference (bf16 minus fp32), seeds (standard deviation over seeds
    within a precision and cell, pooled), expected (what two sets of n runs that differ in their seeds alone differ by
    in 95 of 100 cases: Student's t with that deviation), within (whether the difference is no larger).
    """
    rows = []
    for (method, outcome), own in pairs.groupby(["method", "outcome"]):
        cells = own.groupby(_CELL)
        freedom = 2 * int((cells.size() - 1).sum())
        squares = sum(((own[p] - cells[p].transform("mean")) ** 2).sum() for p in ("bf16", "fp32"))
        seeds = math.sqrt(squares / freedom) if freedom else math.nan
        expected = float(stats.t.ppf(0.975, freedom)) * seeds * math.sqrt(2 / len(own)) if freedom else math.nan
        difference = float((own["bf16"] - own["fp32"]).mean())
        rows.append(
            {
                "method": method,
                "outcome": outcome,
                "n": len(own),
                "bf16": own["bf16"].mean(),
                "fp32": own["fp32"].mean(),
                "difference": difference,
                "seeds": seeds,
                "expected": expected,
                "within": abs(difference) <= expected,
            }
        )
    return pd.DataFrame(rows)


def summary(pairs: pd.DataFrame) -> str:
    """Return the comparison as a Markdown table, and below it the mean difference of all runs with its interval."""
    numbers = ("bf16", "fp32", "difference", "seeds", "expected")
    lines = ["| method | F1 on | n | bf16 | fp32 | bf16 - fp32 | SD over seeds | expected by seeds | within |"]
    lines.append("|---" * 9 + "|")
    for row in compare(pairs).to_dict("records"):
        verdict = "-" if math.isnan(row["expected"]) else "yes" if row["within"] else "no"
        told = [row["method"], row["outcome"], row["n"], *(f"{row[name]:.1f}" for name in numbers), verdict]
        lines.append("| " + " | ".join(map(str, told)) + " |")
    lines.append("")
    for outcome, own in pairs.groupby("outcome"):
        apart = own["bf16"] - own["fp32"]
        low, high = stats.ttest_1samp(apart, 0).confidence_interval()
        lines.append(f"{outcome}: {apart.mean():+.2f} +- {(high - low) / 2:.2f} points over all {len(apart)} pairs.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare the runs of some experiments and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experiments", default="pocket,pocket-fp32", help="names, joined by commas")
    given = parser.parse_args(arguments)
    from analysis.runs.pull import find_experiments, pull
    from whichlora.tracking.client import connect

    client = connect()
    print(summary(pair_runs(pull(client, find_experiments(client, given.experiments)).table)))


if __name__ == "__main__":
    main()
