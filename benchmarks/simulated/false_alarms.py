"""Simulates how often the report's first screen makes a false claim: `python -m benchmarks.simulated.false_alarms`.

Each draw is a table of runs whose truth is known. Its differences, errors and critical values come from the functions
that make the first screen, for many draws at once (`analysis.stats.moderated`). The first draws of each design also go
through the whole path, from the table to the sentences (`analysis.evidence.headline`, `analysis.report.sentences`), and
must give the same claims.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.evidence import headline
from analysis.measures import floored_blocks
from analysis.records import NotTestable, Result, find
from analysis.report import sentences
from analysis.report.advice import advice
from analysis.report.needs import needs
from analysis.stats.best import contenders, within_margin
from analysis.stats.cells import cells
from analysis.stats.contrasts import PAIR_TEST, contrast
from analysis.stats.differences import LIKE_THESE, OTHER, PRIMARY, SAME, THESE, compare, pair_tests
from analysis.stats.distributions import range_quantile
from analysis.stats.mixed.method_model import MethodModel
from benchmarks.simulated.designs import FLOORED, METHODS, NULLS, POWERS, RATIOS, Design, scores, skeleton
from benchmarks.simulated.pairs import MARGIN, Drawn, draw

_CHUNK = 500
Judge = Callable[[Design, pd.DataFrame, NDArray[np.float64]], dict[str, NDArray[np.float64]]]
"""What is counted in some draws of a design, by name; the scores have the shape (draws, rows)."""


def claims(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return which false claims the first screen makes of methods in each draw (1 or 0), and the old F's."""
    drawn = draw(table, values, "tl")
    found = {"difference": _any_differs(drawn[THESE])}
    if LIKE_THESE in drawn:
        found["other scope"] = _any_differs(drawn[LIKE_THESE])
    found["languages disagree"] = _disagree(table, values)
    return {**found, "old F": old_tests(table, values)[:, 0]}


def recommended(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return whether a method that is the margin worse than the first one is recommended in each draw, by scope."""
    return {
        scope: drawn.near_best()[:, 1:].any(axis=1).astype(float) for scope, drawn in draw(table, values, "tl").items()
    }


def floored(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return whether any pair differs in each draw, in the blocks above the floor, and the share of blocks kept."""
    counts: dict[str, list[float]] = {"difference": [], "other scope": [], "blocks kept": []}
    total = len(cells(table.assign(f1=values[0]), "tl").means)
    for row in values:
        kept = cells(floored_blocks.split(table.assign(f1=row), "tl")[0], "tl")
        for name, scope in (("difference", THESE), ("other scope", LIKE_THESE)):
            try:
                compared = compare(kept, scope)
                counts[name].append(float(compared.adjusted(float(np.nanmin(compared.errors.p))) < 0.05))
            except NotTestable:
                counts[name].append(0.0)
        counts["blocks kept"].append(len(kept.means) / total)
    return {name: np.array(of_draws) for name, of_draws in counts.items()}


def same(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return whether the first two methods, a margin apart, are called equivalent in each draw, in both scopes."""
    found = {}
    for scope, drawn in draw(table, values, "tl").items():
        found[scope] = drawn.equivalent()[:, 0].astype(float)
        found[f"{scope}, the pair alone"] = drawn.equivalent(adjusted=False)[:, 0].astype(float)
    return found


def power(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return in each draw whether any pair of the first method differs, and the share of its pairs that do."""
    found = {}
    for scope, drawn in draw(table, values, "tl").items():
        hits = drawn.differ()[:, : len(METHODS) - 1]
        found |= {f"{scope}, any pair": hits.any(axis=1).astype(float), f"{scope}, a pair": hits.mean(axis=1)}
    old = old_tests(table, values)
    return {**found, "old F": old[:, 0], "old Tukey, a pair": old[:, 1]}


def ratios(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return in each draw whether one percent of target items is called different from none, by outcome."""
    options = {"factor": "tl_ratio", "upper": "0.01", "lower": "0"}
    found = {}
    for outcome in ("en", "tl"):
        tested = (find(contrast(table.assign(f1=row), outcome=outcome, **options), test=PAIR_TEST) for row in values)
        found[f"0.01 against 0, {outcome}"] = np.array([float((records[0].p or 1.0) < 0.05) for records in tested])
    return found


def mixed(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return in each draw whether the mixed model calls equal methods different, by F and by pairs, in both scopes."""
    scored = cells(table.assign(f1=values[0]), "tl").scores
    points = 100 * values[:, scored.index]
    found = {}
    for scope in (THESE, LIKE_THESE):
        model = MethodModel(scored, scope)
        compared = [model.compare(row) for row in points]
        tests = [one.test.p if isinstance(one.test, Result) else np.nan for one in compared]
        least = [(np.nanmin(one.comparison.errors.p), one.comparison.critical(0.05)) for one in compared]
        found[f"F, {scope}"] = np.where(np.isnan(tests), np.nan, np.array(tests) < 0.05)
        found[f"any pair, {scope}"] = np.array([float(p < critical) for p, critical in least])
    return found


def check(table: pd.DataFrame, values: NDArray[np.float64]) -> None:
    """Check that the whole path, from the table to the sentences, makes the claims that `draw` says.

    Raises:
        AssertionError: it does not.
    """
    pairs = list(itertools.combinations(METHODS, 2))
    by_outcome = {outcome: draw(table, values, outcome) for outcome in ("en", "tl")}
    for number, row in enumerate(values):
        records = [r for outcome in by_outcome for r in headline(table.assign(f1=row), outcome, MARGIN, THESE)]
        for outcome, drawn in by_outcome.items():
            of_outcome = find(records, outcome=outcome)
            for scope, analysis in ((THESE, PRIMARY), (LIKE_THESE, OTHER)):
                if scope not in drawn:
                    continue
                told = {r.groups: r for r in pair_tests(of_outcome, analysis)}
                assert np.allclose([told[pair].p for pair in pairs], drawn[scope].errors.p[number], rtol=1e-6)
                assert [(told[p].p_adjusted or 0.0) < 0.05 for p in pairs] == drawn[scope].differ()[number].tolist()
                same = {r.groups: r for r in find(of_outcome, analysis=analysis, test=SAME)}
                equivalent = [(same[pair].p_adjusted or 0.0) < 0.05 for pair in pairs]
                assert equivalent == drawn[scope].equivalent()[number].tolist()
                for draws, names in (
                    (drawn[scope].may_be_best(), contenders(of_outcome, analysis)),
                    (drawn[scope].near_best(), within_margin(of_outcome, analysis)),
                ):
                    assert [method in names for method in METHODS] == draws[number].tolist()
            differs = bool(drawn[THESE].differ()[number].any())
            assert differs == (" differ on these" in sentences.answer(records, outcome, MARGIN)[0])
        best, near = by_outcome["tl"][THESE].may_be_best()[number], by_outcome["tl"][THESE].near_best()[number]
        lead, screen = advice(records, "tl", MARGIN)[0], needs(records, "tl", MARGIN)
        assert lead.startswith("Use " if near.any() or best.sum() == 1 else "No method can be recommended yet")
        if not near.any():
            assert sorted(screen[0].answer.replace(" or ", ", ").split(", ")) == [
                m for m, yes in zip(METHODS, best, strict=True) if yes
            ]
        assert any(need.need.startswith("For ") for need in screen) == bool(_disagree(table, row[None])[0])


def _disagree(table: pd.DataFrame, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return whether the languages disagree in each draw: no method may be best in all, or a pair differs both ways."""
    tables = {name: np.flatnonzero(table["language"] == name) for name in sorted(set(table["language"]) - {""})}
    drawn = [draw(table.iloc[rows].reset_index(drop=True), values[:, rows], "tl")[THESE] for rows in tables.values()]
    level = 0.05 / len(drawn)
    common = np.all([one.may_be_best(level) for one in drawn], axis=0).any(axis=1)
    signs = np.stack([one.signs(level) for one in drawn])
    opposite = ((signs > 0).any(axis=0) & (signs < 0).any(axis=0)).any(axis=(1, 2))
    return np.asarray(~common | opposite, dtype=float)


def _any_differs(drawn: Drawn) -> NDArray[np.float64]:
    return drawn.differ().any(axis=1).astype(float)


def old_tests(table: pd.DataFrame, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return in each draw whether the former F differs, and the share of the first method's pairs that Tukey finds.

    It is the F of method against method x block with every language a block, also those of one adapter.
    """
    target = table[table["outcome"] == "tl"]
    block = target["setting"] + target["language"] + target["tl_ratio"].astype(str)
    cell = (target["method"] + block).to_numpy(dtype=object)
    means = np.stack([100 * values[:, target.index[cell == name]].mean(axis=1) for name in sorted(set(cell))], axis=1)
    means = means.reshape(len(values), len(METHODS), block.nunique())
    means = means - means.mean(axis=1, keepdims=True)
    leads = means.mean(axis=2)
    df = (len(METHODS) - 1, (len(METHODS) - 1) * (block.nunique() - 1))
    error = ((means - leads[..., None]) ** 2).sum(axis=(1, 2)) / df[1]
    f = block.nunique() * (leads**2).sum(axis=1) / df[0] / error
    apart = np.abs(leads[:, :1] - leads[:, 1:]) / np.sqrt(error / block.nunique())[:, None]
    pairs = (apart > range_quantile(0.95, len(METHODS), df[1])).mean(axis=1)
    return np.stack([f > stats.f.isf(0.05, *df), pairs], axis=1)


def simulate(name: str, design: Design, judge: Judge, draws: int, checked: int) -> dict[str, float]:
    """Return the shares that `judge` finds; the first `checked` draws also go through the whole path."""
    table = skeleton(design)
    rng = np.random.default_rng(2026)
    parts: list[dict[str, NDArray[np.float64]]] = []
    for start in range(0, draws, _CHUNK):
        values = scores(design, table, rng, min(_CHUNK, draws - start))
        if start == 0 and judge is not floored:
            check(table, values[:checked])
        parts.append(judge(design, table, values))
    return {key: float(np.concatenate([part[key] for part in parts]).mean()) for key in parts[0]}


def _one_best(design: Design) -> Design:
    """Return the design with its first method the margin above all others, so that no other may be recommended."""
    return replace(design, leads=(MARGIN, *(0.0,) * (len(METHODS) - 1)))


def _apart(design: Design) -> Design:
    """Return the design with its first two methods one point apart and the others midway, the edge of equivalence."""
    return replace(design, leads=(MARGIN / 2, -MARGIN / 2, 0.0, 0.0, 0.0, 0.0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print the shares as a Markdown table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--checked", type=int, default=3, help="draws of each design that go through the whole path")
    parser.add_argument("--only", default="", help="one of null, ratios, margin, advice, floors, power and mixed")
    options = parser.parse_args(arguments)
    kinds = {
        "null": (NULLS, claims),
        "ratios": ({name: NULLS[name] for name in RATIOS}, ratios),
        "margin": ({name: _apart(design) for name, design in NULLS.items()}, same),
        "advice": ({name: _one_best(design) for name, design in NULLS.items()}, recommended),
        "floors": (FLOORED, floored),
        "power": (POWERS, power),
        "mixed": (NULLS, mixed),
    }
    for kind, (designs, judge) in kinds.items():
        if options.only in ("", kind):
            shares = {
                name: simulate(name, design, judge, options.draws, options.checked) for name, design in designs.items()
            }
            print(f"\n{markdown(pd.DataFrame.from_dict(shares, orient='index'))}", flush=True)


def markdown(shares: pd.DataFrame) -> str:
    """Return shares as a Markdown table, with three decimals; numbers from 10 on, which are none, with one."""
    lines = [f"| design | {' | '.join(shares)} |", "|---" * (len(shares.columns) + 1) + "|"]
    for name, row in shares.iterrows():
        texts = ("" if np.isnan(value) else f"{value:.{3 if value < 10 else 1}f}".removeprefix("0") for value in row)
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
