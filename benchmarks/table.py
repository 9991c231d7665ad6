"""Writes the table in benchmarks/README.md from results.json: `python -m benchmarks.table`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARKS = ("<!-- made by `python -m benchmarks.table` -->", "<!-- end -->")


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table in Markdown, followed by the conditions of the measurement and the notes."""
    lines = [
        "| work | against | here | there | n | ratio | goal | the same result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(row) for row in results["rows"]]
    for name, reason in results["skipped"].items():
        lines.append(f"| `{name}` | | not measured: {reason} | | | | | |")
    return "\n".join([*lines, "", *_conditions_and_notes(results)])


def _row(row: Mapping[str, Any]) -> str:
    here, there = (_values(row, side) for side in ("ours", "theirs"))
    mark = "" if row["reached"] else " (missed)"
    goal = f"{'at most ' if row['less'] else ''}{row['goal']:g}{'' if row['against'] else ' ' + row['unit']}{mark}"
    ratio = f"**{row['value']:.2f}**" if row["against"] else ""
    equal = row["equal"]
    same = "" if equal is None else _same(equal)
    n = row["ours_summary"]["n"]
    return f"| {row['work']} | {row['against']} | {here} | {there} | {n} | {ratio} | {goal} | {same} |"


def _values(row: Mapping[str, Any], side: str) -> str:
    summary = row.get(f"{side}_summary")
    if summary is None:
        return ""
    median, low, high = (_number(summary[key] / row["scale"]) for key in ("median", "low", "high"))
    per = f" {'an' if row['per'][0] in 'aeiou' else 'a'} {row['per']}" if row["per"] else ""
    return f"{median} {row['unit']}{per} ({low} to {high})"


def _same(equal: Mapping[str, Any]) -> str:
    text = equal["what"] if equal["share"] else f"{equal['what']} {equal['value']:.1e}"
    if not equal["holds"]:
        return f"**NO**: {text}"
    return text if equal["share"] or equal["limit"] is None else f"{text} (limit {equal['limit']:g})"


def _conditions_and_notes(results: Mapping[str, Any]) -> list[str]:
    machine, clock = results["machine"], results["clock"]
    unit = {"wall": "Wall-clock seconds", "cpu": "CPU seconds over all threads"}[clock]
    lines = [
        f"{unit}: medians with quartiles; ratios are of medians, for the grid of sums. {results['date']}, model "
        f"{results['model']}, {machine['processor']}, {machine['cores']} cores, {machine['threads']} threads per side, "
        f"{machine['memory_gib']} GiB; Python {machine['python']}, torch {machine['torch']}, transformers "
        f"{machine['transformers']}, peft {machine['peft']}, TRL {machine['trl'] or 'not installed'}. Total time: "
        f"{results['minutes']:.0f} minutes.",
    ]
    if results["provisional"]:
        busy = f"CPU use by other processes beforehand: {machine['busy_before']:.0f} %"
        lines += ["", f"**Provisional**: too few measurements, or the machine was not idle ({busy})."]
    peaks = results["peak_gflops"]
    shares = [
        f"{row['work']}: {_share(row, 'ours', peaks, clock, machine):.0%} here, "
        f"{_share(row, 'theirs', peaks, clock, machine):.0%} there ({row['against']})"
        for row in results["rows"]
        if row["flops"]
    ]
    if shares:
        products = ", ".join(f"{name} {by[clock]:.0f}" for name, by in peaks.items())
        lines += [
            "",
            f"Peak, from products of two 2048 x 2048 matrices, in GFLOP/s: {products}. Useful work (no padding, no "
            f"logits) as a share of the peak: {'; '.join(shares)}.",
        ]
    notes = [f"- {row['work']}: {note}" for row in results["rows"] for note in row["notes"]]
    return [*lines, *(["", *notes] if notes else [])]


def _share(
    row: Mapping[str, Any], side: str, peaks: Mapping[str, Any], clock: str, machine: Mapping[str, Any]
) -> float:
    seconds = row[f"{side}_summary"]["median"] / (machine["threads"] if clock == "cpu" else 1)
    return float(row["flops"] / seconds / 1e9 / peaks[row["precision"]][clock])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def insert_table(text: str, table: str) -> str:
    """Return a README with the table inserted between its marks."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"


def main() -> int:
    """Rewrite the table in the README."""
    readme = HERE / "README.md"
    table = markdown(json.loads((HERE / "results.json").read_text()))
    readme.write_text(insert_table(readme.read_text(), table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
