"""Lists the MLflow runs behind each cell of the results, with their addresses on the tracking server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from analysis.runs.methods import method_order

RELATIVE = "relative"


class RunLink(NamedTuple):
    """A run of a cell; the address is empty if the run is in no tracking server."""

    seed: str
    address: str


class RunRow(NamedTuple):
    """The runs of a method in one language: a cell for each ratio, which may be empty."""

    setting: str
    method: str
    language: str
    cells: tuple[tuple[RunLink, ...], ...]


class RunTable(NamedTuple):
    """All runs by method, language and ratio."""

    ratios: tuple[str, ...]
    rows: tuple[RunRow, ...]

    @property
    def linked(self) -> bool:
        return any(link.address for row in self.rows for cell in row.cells for link in cell)


def run_table(table: pd.DataFrame, experiments: Mapping[str, str], server: str) -> RunTable:
    """Return the runs behind the results on the target language (one per run).

    Args:
        table: of runs; one without an id or whose experiment is not among `experiments` has no address.
        experiments: ids by name.
        server: address of the tracking server, or "relative".
    """
    runs = table[table["outcome"] == "tl"]
    ratios = sorted(set(runs["tl_ratio"]))
    order = {method: position for position, method in enumerate(method_order(runs))}
    several = runs["setting"].nunique() > 1
    rows = []
    keys = sorted(
        {(str(s), str(m), str(x)) for s, m, x in zip(runs["setting"], runs["method"], runs["language"], strict=True)},
        key=lambda key: (key[0], order[key[1]], key[2]),
    )
    cells: dict[tuple[str, str, str, float], list[tuple[int, RunLink]]] = {}
    for run in runs.to_dict("records"):
        link = RunLink(str(run["seed"]), _address(run, experiments, server))
        cells.setdefault((run["setting"], run["method"], run["language"], run["tl_ratio"]), []).append(
            (run["seed"], link)
        )
    for setting, method, language in keys:
        own = tuple(tuple(link for _, link in sorted(cells.get((setting, method, language, r), []))) for r in ratios)
        rows.append(RunRow(setting if several else "", method, language, own))
    return RunTable(tuple(f"{100 * ratio:g} %" for ratio in ratios), tuple(rows))


def _address(run: Mapping[Any, Any], experiments: Mapping[str, str], server: str) -> str:
    number, run_id = experiments.get(str(run.get("experiment"))), run.get("run_id")
    if not number or not isinstance(run_id, str) or not run_id:
        return ""
    base = "." if server == RELATIVE else server.rstrip("/")
    return f"{base}/#/experiments/{quote(number, safe='')}/runs/{quote(run_id, safe='')}"
