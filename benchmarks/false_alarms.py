"""Simulates how often the report's first screen makes a false claim: `python -m benchmarks.false_alarms --draws 2000`.

Each draw is a table of runs whose truth is known. Its differences, errors and critical values come from the functions
that make the first screen, for many draws at once (`analysis.stats.moderated`). The first draws of each design also go
through the whole path, from the table to the sentences (`analysis.evidence.headline`, `analysis.report.sentences`), and
must give the same claims.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.evidence import headline
from analysis.records import Result, find
from analysis.report import sentences
from analysis.stats.cells import cells
from analysis.stats.contrasts import PAIR_TEST, contrast
from analysis.stats.differences import LIKE_THESE, OTHER, PRIMARY, SAME, SCOPES, THESE, compare, one_sided, pair_tests
from analysis.stats.distributions import range_quantile
from analysis.stats.mixed.method_model import MethodModel
from analysis.stats.moderated import Errors, moderated
from analysis.stats.multiplicity import holm
from analysis.stats.units import adjusted_means, arrange
from benchmarks.simulated_designs import METHODS, NULLS, POWERS, RATIOS, Design, scores, skeleton

_CHUNK = 500
_MARGIN = 1.0
Judge = Callable[[Design, pd.DataFrame, NDArray[np.float64]], dict[str, NDArray[np.float64]]]
"""What is counted in some draws of a design, by name; the scores have the shape (draws, rows)."""


@dataclass(frozen=True)
class Drawn:
    """The pairs of one scope in many draws.

    Attributes:
        means: (draws, methods) adjusted means.
        errors: of the pairs, each (draws, pairs).
        critical: the p of a pair alone that is significant, by level.
    """

    means: NDArray[np.float64]
    errors: Errors
    critical: Mapping[float, float]

    def differ(self, alpha: float = 0.05) -> NDArray[np.bool_]:
        """Return which pairs differ, (draws, pairs)."""
        return np.asarray(self.errors.p < self.critical[alpha])

    def equivalent(self, *, adjusted: bool = True) -> NDArray[np.bool_]:
        """Return which pairs are equivalent within the margin, (draws, pairs)."""
        _, p = one_sided(self.errors.effect, self.errors.error, self.errors.df, _MARGIN)
        return np.asarray((np.array([holm(row) for row in p]) if adjusted else p) < 0.05)


def draw(table: pd.DataFrame, values: NDArray[np.float64], outcome: str) -> dict[str, Drawn]:
    """Return the pairs of each scope that can be tested, from scores of shape (draws, rows).

    Which results make a unit, and which units a block, is what the report's `cells` says of the table.
    """
    rows = np.flatnonzero(table["outcome"] == outcome)
    first = cells(table.assign(f1=values[0]), outcome)
    layout = arrange(first.units)
    adapter_codes, adapters = pd.factorize(table["adapter"].iloc[rows])
    averages = np.stack([100 * values[:, rows[adapter_codes == code]].mean(axis=1) for code in range(len(adapters))], 1)
    by_adapter = first.units.set_index("adapter").loc[adapters]
    axes = (layout.methods, layout.blocks, layout.seeds)
    places = tuple(
        pd.Index(names).get_indexer(by_adapter[key])
        for names, key in zip(axes, ("method", "block", "seed"), strict=True)
    )
    units = np.full((len(values), *layout.values.shape), np.nan)
    units[(slice(None), *places)] = averages
    if np.isnan(layout.values).any():
        by_block = np.swapaxes(units, 1, 2)
        means = np.array([[adjusted_means(block)[0] for block in one] for one in by_block]).swapaxes(1, 2)
    else:
        means = units.mean(axis=3)
    shapes = {THESE: units, LIKE_THESE: means[:, :, None, :]}
    i, j = np.triu_indices(len(METHODS), 1)
    found = {}
    for scope in SCOPES if len(layout.blocks) > 1 else (THESE,):
        compared = compare(first, scope)
        levels = {alpha: compared.critical(alpha) for alpha in (0.05, 0.025)}
        found[scope] = Drawn(means.mean(axis=2), moderated(shapes[scope][:, i] - shapes[scope][:, j]), levels)
    return found


def claims(design: Design, table: pd.DataFrame, values: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Return which false claims the first screen makes of methods in each draw (1 or 0), and the old F's."""
    by_outcome = {outcome: draw(table, values, outcome) for outcome in ("en", "tl")}
    found = {"difference": _any_differs(by_outcome["tl"][THESE])}
    if LIKE_THESE in by_outcome["tl"]:
        found["other scope"] = _any_differs(by_outcome["tl"][LIKE_THESE])
    excluded = [_left_out(drawn[THESE]) for drawn in by_outcome.values()]
    found["wrong advice"] = np.any(excluded, axis=(0, 2)).astype(float)
    return {**found, "old F": old_tests(table, values)[:, 0]}


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
    for scope in SCOPES:
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
        records = [r for outcome in by_outcome for r in headline(table.assign(f1=row), outcome, _MARGIN, THESE)]
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
            differs = bool(drawn[THESE].differ()[number].any())
            assert differs == (" differ on these" in sentences.answer(records, outcome, _MARGIN)[0])
        excluded = np.any([_left_out(drawn[THESE])[number] for drawn in by_outcome.values()], axis=0)
        names = [name for name, out in zip(METHODS, excluded, strict=True) if not out]
        advice = sentences.advice(records)[0]
        expected = f"{names[0]} alone is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}."
        assert expected in advice if names else advice.startswith("No method is among the best")


def _any_differs(drawn: Drawn) -> NDArray[np.float64]:
    return drawn.differ().any(axis=1).astype(float)


def _left_out(drawn: Drawn) -> NDArray[np.bool_]:
    """Return which methods the advice leaves out, (draws, methods): those below the best at half the level."""
    differ = np.zeros((len(drawn.means), len(METHODS), len(METHODS)), dtype=bool)
    i, j = np.triu_indices(len(METHODS), 1)
    differ[:, i, j] = differ[:, j, i] = drawn.differ(0.025)
    return np.asarray(differ[np.arange(len(differ)), drawn.means.argmax(axis=1)])


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
        if start == 0:
            check(table, values[:checked])
        parts.append(judge(design, table, values))
    return {key: float(np.concatenate([part[key] for part in parts]).mean()) for key in parts[0]}


def _apart(design: Design) -> Design:
    """Return the design with its first two methods one point apart and the others midway, the edge of equivalence."""
    return replace(design, leads=(_MARGIN / 2, -_MARGIN / 2, 0.0, 0.0, 0.0, 0.0))


def main() -> None:
    """Run the simulations and print the shares as a Markdown table for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--checked", type=int, default=3, help="draws of each design that go through the whole path")
    parser.add_argument("--only", default="", help="one of null, ratios, margin, power and mixed")
    options = parser.parse_args()
    kinds = {
        "null": (NULLS, claims),
        "ratios": ({name: NULLS[name] for name in RATIOS}, ratios),
        "margin": ({name: _apart(design) for name, design in NULLS.items()}, same),
        "power": (POWERS, power),
        "mixed": (NULLS, mixed),
    }
    for kind, (designs, judge) in kinds.items():
        if options.only in ("", kind):
            shares = {
                name: simulate(name, design, judge, options.draws, options.checked) for name, design in designs.items()
            }
            print(f"\n{_markdown(pd.DataFrame.from_dict(shares, orient='index'))}", flush=True)


def _markdown(shares: pd.DataFrame) -> str:
    lines = [f"| design | {' | '.join(shares)} |", "|---" * (len(shares.columns) + 1) + "|"]
    for name, row in shares.iterrows():
        texts = ("" if np.isnan(value) else f"{value:.3f}".replace("0.", ".", 1) for value in row)
        lines.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
