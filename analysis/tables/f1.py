"""Builds the tables of F1: by language, method and ratio, and means over the languages."""

from __future__ import annotations

from collections.abc import Mapping, Set

import pandas as pd

from analysis.measures.shallow_baselines import BEST_FLOOR, best_floor
from analysis.naming import legend, names_of
from analysis.records import Record, described
from analysis.runs.methods import UNTRAINED, method_order
from analysis.tables.formats import Cell, Part, Table, best_and_second, cell, mean_and_sd

_Key = tuple[str, str, float, str]
"""Outcome, language, ratio and method."""
_COLUMNS = ["setting", "language", "tl_ratio", "method", "outcome", "mean", "sd", "seeds"]


def f1_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate F1 in points, English / target language, by language, method and ratio."""
    ratios = sorted(set(rows["tl_ratio"]))
    languages = sorted(set(rows["language"]) - {""})
    names, outcomes = names_of(rows), [outcome for outcome in ("en", "tl") if outcome in set(rows["outcome"])]
    floors = _floors(rows)
    order = [*method_order(rows), *([BEST_FLOOR] if floors else ())]
    cells = _means(rows) | floors
    ranks = _ranks(cells, {*rows.loc[rows["variant"] == UNTRAINED, "method"], BEST_FLOOR})
    numbers, records, body = [], [], []
    for language in languages:
        for method in order:
            line: list[Cell] = [cell(language), cell(method)]
            for ratio in ratios:
                parts = []
                for outcome in outcomes:
                    # At ratio 0 all languages share one adapter, whose English result has an empty language.
                    key = next((c for c in (language, "") if (outcome, c, ratio, method) in cells), None)
                    if key is None or (outcome == "tl" and key == ""):
                        parts.append(Part("–"))
                        continue
                    mean, sd, n = cells[outcome, key, ratio, method]
                    parts.append(Part(mean_and_sd(mean, sd, 1), ranks.get((outcome, key, ratio, method), 0)))
                    numbers.append((setting, language, ratio, method, outcome, mean, sd, n))
                line.append(tuple(parts))
            body.append(tuple(line))
    for (outcome, language, ratio, method), (mean, sd, n) in cells.items():
        where = (method, setting, language or "every language", f"{ratio:g}")
        records.append(described(outcome, "F1", where, mean, sd, n, "points, over seeds"))
    of_methods = [key for key in cells if key[3] != BEST_FLOOR]
    remarks = legend(languages) + " The best floor is the best shallow method on the same items." * bool(floors)
    if any(key[:2] == ("en", "") for key in of_methods):
        remarks += f" {names.source} at 0 % is that of one adapter for all languages."
    counts = {cells[key][2] > 1 for key in of_methods}
    seeds = "Mean ± standard deviation over seeds" if True in counts else "One seed a cell, so without a spread"
    seeds += " (without ±: one seed)" * (len(counts) > 1)
    caption = (
        f"{setting}. {names.score} in points, {names.listed(outcomes)}, by share of target-language items. {seeds}; "
        f"best of a column and language bold, second underlined.{remarks}"
    )
    table = Table(
        name=name,
        title=names.fill("{Score}."),
        caption=caption,
        header=("language", "method", *(f"{100 * ratio:g} %" for ratio in ratios)),
        rows=tuple(body),
        labels=2,
        numbers=pd.DataFrame(numbers, columns=_COLUMNS),
    )
    return table, records


def language_means_table(rows: pd.DataFrame, *, name: str, setting: str) -> tuple[Table | None, list[Record]]:
    """Tabulate F1 in points as means over the target languages; None if there are several ratios or one language.

    The mean is taken within each seed; a seed that lacks a language does not count.
    """
    languages, ratios = sorted(set(rows["language"]) - {""}), sorted(set(rows["tl_ratio"]))
    if len(languages) < 2 or len(ratios) > 1:
        return None, []
    names, outcomes = names_of(rows), [outcome for outcome in ("en", "tl") if outcome in set(rows["outcome"])]
    cells: dict[tuple[str, str], tuple[float, float, int]] = {}
    records, numbers = [], []
    for (outcome, method), found in rows.groupby(["outcome", "method"], sort=True):
        by_seed = found.groupby("seed")
        complete = by_seed["language"].agg(lambda values: set(values) in ({""}, set(languages)))
        values = 100 * by_seed["f1"].mean()[complete]
        if values.empty:
            continue
        mean, sd, n = float(values.mean()), float(values.std()), len(values)
        cells[str(outcome), str(method)] = (mean, sd, n)
        where = (str(method), setting)
        records.append(described(str(outcome), "F1, mean over languages", where, mean, sd, n, "points, over seeds"))
        numbers.append((setting, "mean", ratios[0], method, outcome, mean, sd, n))
    untrained = {*rows.loc[rows["variant"] == UNTRAINED, "method"]}
    ranks = {
        outcome: best_and_second({m: v[0] for (o, m), v in cells.items() if o == outcome and m not in untrained}, 1)
        for outcome in outcomes
    }

    def show(outcome: str, method: str) -> Cell:
        if (outcome, method) not in cells:
            return cell("–")
        mean, sd, _ = cells[outcome, method]
        return (Part(mean_and_sd(mean, sd, 1), ranks[outcome].get(method, 0)),)

    table = Table(
        name=name,
        title=names.fill("{Score}, means over languages."),
        caption=f"{setting}. Points, means over {', '.join(languages)} at {100 * ratios[0]:g} % target-language items, "
        f"± standard deviation over seeds; best bold, second underlined.{legend(languages)}",
        header=("method", *map(names.title, outcomes)),
        rows=tuple((cell(method), *(show(outcome, method) for outcome in outcomes)) for method in method_order(rows)),
        labels=1,
        numbers=pd.DataFrame(numbers, columns=_COLUMNS),
    )
    return table, records


def _means(rows: pd.DataFrame) -> dict[_Key, tuple[float, float, int]]:
    """Return mean, standard deviation and number of seeds, in points, by outcome, language, ratio and method."""
    grouped = (rows.assign(points=100 * rows["f1"])).groupby(["outcome", "language", "tl_ratio", "method"], sort=True)
    summary = grouped["points"].agg(["mean", "std", "size"])
    return {tuple(key): (float(m), float(s), int(n)) for key, m, s, n in summary.itertuples(name=None)}  # type: ignore[misc]


def _floors(rows: pd.DataFrame) -> dict[_Key, tuple[float, float, int]]:
    """Summarise the best floor like `_means`; runs on the same mixture share a floor, which counts once per seed."""
    floors: dict[_Key, tuple[float, float, int]] = {}
    for outcome in ("en", "tl"):
        by_seed = best_floor(rows, outcome).groupby(["language", "tl_ratio", "seed"])["floor"].mean()
        grouped = by_seed.groupby(["language", "tl_ratio"]).agg(["mean", "std", "size"])
        for (language, ratio), mean, sd, n in grouped.itertuples(name=None):
            floors[outcome, language, ratio, BEST_FLOOR] = (float(mean), float(sd), int(n))
    return floors


def _ranks(cells: Mapping[_Key, tuple[float, float, int]], untrained: Set[str]) -> dict[_Key, int]:
    """Rank the trained methods within each column and language."""
    columns: dict[tuple[str, str, float], dict[str, float]] = {}
    for (outcome, language, ratio, method), (mean, _, _) in cells.items():
        if method not in untrained:
            columns.setdefault((outcome, language, ratio), {})[method] = mean
    ranks: dict[_Key, int] = {}
    for column, means in columns.items():
        ranks |= {(*column, method): rank for method, rank in best_and_second(means, 1).items()}
    return ranks
