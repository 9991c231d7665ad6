"""Reads alignment probes (similarity of translations by layer) and weight probes (how training changed the weights).

They are reported without reference to F1: every probe of a finished run in the report, or of its base model, is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.naming import DEFAULT_SOURCE
from analysis.runs.design import Issue
from analysis.runs.methods import UNTRAINED, method_order
from analysis.runs.probe_runs import (
    BASE,
    LAYER_COLUMNS,
    REPRESENTATION_KINDS,
    group_by_status,
    probe_issue,
    read_layers,
)
from analysis.runs.tidy import Runs
from whichlora.data.language_names import language_name

if TYPE_CHECKING:
    from mlflow.entities import Run

ALIGNMENT, WEIGHTS = REPRESENTATION_KINDS
GAP, P1, MRR = "cosine/gap", "p1", "mrr"
ALIGNMENT_MEASURES = (
    *(f"{GAP}/{space}" for space in ("centred", "raw")),
    *(f"{measure}/{way}/centred" for measure in (P1, MRR) for way in ("to", "from")),
)
"""The measures of an alignment probe that the report shows; the CSV file has all of them."""
CKA_MEASURES = ("cka/english", "cka/translation")
SIZE_MEASURES = ("relative_norm", "spectral_norm", "stable_rank", "rank")
OVERLAP_MEASURES = {"overlap_out": "chance_out", "overlap_in": "chance_in"}
"""Overlap measures, each with the measure of its chance level for random directions."""
_HEAD_MEASURES = {ALIGNMENT: ALIGNMENT_MEASURES[0], WEIGHTS: SIZE_MEASURES[0]}
"""A measure that every probe of a kind has, used to recognise its file."""
_BASE_MODEL = ("model_digest", "precision", "quantization")
_OPTIONS = ("kind", "against", "language", "pairs", "first_token", "items_digest")
_RUN_COLUMNS = ("setting", "method", "variant", "tl_ratio", "seed")
COMPARABLE_BY = ("start", "language", "texts", "items_digest")
"""The columns that alignment probes in one figure have in common."""
_COLUMNS = (
    *("probe_id", "run_id", *_RUN_COLUMNS, "run_language", *COMPARABLE_BY, "against", *LAYER_COLUMNS),
    *("source", "chance_p1", "chance_mrr"),
)


@dataclass(frozen=True, kw_only=True)
class RepresentationProbes:
    """The alignment and weight probes of the analysed runs.

    Attributes:
        alignment, weights: one row per probe, layer and measure, as in its `layers.parquet`, with the probe_id; the
            run_id ("" for a base model), setting, method, variant, tl_ratio, seed and run_language of the probed run;
            and `against`, the name of the model it was compared with, if any. For alignment also `COMPARABLE_BY` (base
            model and precision, language, number and kind of pairs, their digest), the name of the source language,
            and the chance levels.
        failed, unfinished, duplicates, left_out: probes that are not shown, with the reason.
    """

    alignment: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_COLUMNS)))
    weights: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_COLUMNS)))
    failed: tuple[Issue, ...] = ()
    unfinished: tuple[Issue, ...] = ()
    duplicates: tuple[Issue, ...] = ()
    left_out: tuple[Issue, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """The ids of the probes behind both."""
        return tuple(sorted({*self.alignment["probe_id"], *self.weights["probe_id"]}))


def fetch(runs: Runs, *, cache: Path | None = None) -> RepresentationProbes:
    """Read the pulled alignment and weight probes of the runs in the report."""
    probes = [run for run in runs.probes if run.data.params.get("kind") in REPRESENTATION_KINDS]
    probes.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
    failed, unfinished, finished = group_by_status(probes)
    lookup = _RunLookup(runs)
    contents = read_layers(finished, cache)
    left_out: list[Issue] = []
    rows: dict[tuple[str, ...], tuple[Run, Mapping[str, Any]]] = {}
    duplicates = []
    for run in finished:
        row = lookup.of(run)
        head_measure = _HEAD_MEASURES[run.data.params["kind"]]
        if row is None:
            left_out.append(probe_issue(run, "looks into no run, or base model, of those used here"))
        elif run.info.run_id not in contents or head_measure not in contents[run.info.run_id]["measure"].to_pylist():
            left_out.append(probe_issue(run, "has no layers.parquet of its kind that can be read"))
        else:
            key = (row["run_id"], *(run.data.params.get(name, "") for name in (*_BASE_MODEL, *_OPTIONS)))
            if key in rows:
                text = (
                    f"is of the same model and made in the same way as {run.info.run_id}, which ended later and is used"
                )
                duplicates.append(probe_issue(rows[key][0], text))
            rows[key] = (run, row)
    frames: dict[str, list[pd.DataFrame]] = {kind: [] for kind in REPRESENTATION_KINDS}
    for run, row in rows.values():
        table = contents[run.info.run_id].to_pandas()
        frames[run.data.params["kind"]].append(table.assign(**_describe(run, row, lookup)))
    order = [*COMPARABLE_BY, "setting", "run_language", "method", "tl_ratio", "seed", "probe_id", "measure", "layer"]
    tables = {
        kind: pd.concat(parts, ignore_index=True).sort_values(order, kind="stable", ignore_index=True)[list(_COLUMNS)]
        for kind, parts in frames.items()
        if parts
    }
    return RepresentationProbes(
        **tables, failed=failed, unfinished=unfinished, duplicates=tuple(duplicates), left_out=tuple(left_out)
    )


def join_weights(table: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Return the table of runs with the mean stable rank of their updates over layers, and its share of the rank.

    The columns are `probe/weights/stable_rank` and `probe/weights/rank_use`, NaN for runs without a weight probe.
    """
    of_runs = weights[(weights["run_id"] != "") & (weights["measure"] == "stable_rank")]
    if of_runs.empty or table.empty:
        return table
    mean = of_runs.groupby("run_id")["value"].mean().reindex(table["run_id"]).to_numpy(dtype=float)
    use = mean / table["rank"].astype(float)
    return table.assign(**{"probe/weights/stable_rank": mean, "probe/weights/rank_use": use})


class _RunLookup:
    """Looks up the run that a probe belongs to, by run id, fingerprint or base model."""

    def __init__(self, runs: Runs) -> None:
        rows: Sequence[Any] = [
            *runs.table[runs.table["outcome"] == "tl"].to_dict("records"),
            *runs.injected.to_dict("records"),
        ]
        self._by_id = {row["run_id"]: row for row in rows}
        self._by_fingerprint = {row["fingerprint"]: row for row in rows if row.get("fingerprint")}
        self._bases = {self._start(row): row for row in reversed(rows)}

    def of(self, run: Run) -> Mapping[str, Any] | None:
        """Return the row of the probed run or, for a base model, of a run that starts from it; None without one."""
        source, params = run.data.tags.get("whichlora.source"), run.data.params
        if source is not None:
            return self._by_id.get(source) or self._by_fingerprint.get(params.get("source_fingerprint", ""))
        row = self._bases.get(self._start(params))
        return None if row is None else {**row, "run_id": "", "method": BASE, "variant": UNTRAINED}

    def name(self, fingerprint: str) -> str:
        """Return the name of the model that a probe was compared with."""
        if fingerprint in ("", "base"):
            return BASE if fingerprint else ""
        row = self._by_fingerprint.get(fingerprint)
        return f"run {fingerprint[:8]}" if row is None else f"{row['method']}, seed {row['seed']}"

    def _start(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(name, "")) for name in _BASE_MODEL)


def _describe(run: Run, row: Mapping[str, Any], lookup: _RunLookup) -> dict[str, Any]:
    """Return the columns of a probe that describe its run and its texts."""
    params, metrics = run.data.params, run.data.metrics
    task = f"texts of {params.get('task', 'a task')}"
    kinds = {"words": "word pairs", "task": task, "tatoeba": "sentences of Tatoeba"}
    texts = f"{params.get('items', '?')} {kinds.get(params.get('pairs', ''), 'pairs of a file')}, first token "
    shown = row if row["run_id"] else {**row, "setting": "", "tl_ratio": math.nan, "seed": 0}
    quantized = [row["quantization"]] if row["quantization"] != "none" else []
    return {
        "probe_id": run.info.run_id,
        **{name: shown[name] for name in ("run_id", *_RUN_COLUMNS)},
        "run_language": row["language"] if row["run_id"] else "",
        "start": ", ".join([row["model"], row["precision"], *quantized]),
        "language": params.get("language", ""),
        "source": language_name(params.get("source_language", DEFAULT_SOURCE)),
        "texts": texts + params.get("first_token", "drop"),
        "items_digest": params.get("items_digest", ""),
        "against": lookup.name(params.get("against", "")),
        **{f"chance_{name}": metrics.get(f"chance/{name}", math.nan) for name in (P1, MRR)},
    }


class Group(NamedTuple):
    """Comparable alignment probes: of the same texts, read in the same way, with one base model.

    Attributes:
        suffix: the suffix of the names of its tables and figures.
        source: the language of the first text of a pair, by name.
        about: a sentence about the texts and the base model.
        rows: the rows of the probes, with the column `line`.
    """

    suffix: str
    source: str
    language: str
    about: str
    rows: pd.DataFrame

    def lines(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows of each line, in the order of the methods, with the base model last.

        If a run was probed against several other models, only one of its probes counts.
        """
        once = set(self.rows.drop_duplicates("run_id", keep="last")["probe_id"])
        return _ordered(self.rows[self.rows["probe_id"].isin(once)])


def comparable_groups(alignment: pd.DataFrame) -> list[Group]:
    """Return the groups of comparable alignment probes, by language."""
    by_texts = alignment.groupby(list(COMPARABLE_BY), sort=True)
    several = alignment.groupby("language")["items_digest"].nunique().max() > 1 or alignment["start"].nunique() > 1
    return [
        Group(
            f"-{language}-{position}" if several else f"-{language}",
            str(rows["source"].iloc[0]),
            str(language),
            f"{start}. {texts}, {rows['source'].iloc[0]} and {language}.",
            rows.assign(line=_lines(rows)),
        )
        for position, ((start, language, texts, _), rows) in enumerate(by_texts, 1)
    ]


class Family(NamedTuple):
    """Alignment probes of one kind of texts in several languages, with one base model.

    Attributes:
        about: the base model and the kind of texts, as a sentence.
        rows: the rows of the probes, with the column `line`, without the language of a run that was probed in it.
    """

    source: str
    about: str
    rows: pd.DataFrame

    def lines(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows of each line, in the order of the methods, with the base model last."""
        return _ordered(self.rows)


def languages_by_texts(alignment: pd.DataFrame) -> list[Family]:
    """Return the families of alignment probes in several languages; of a run and language the last probe counts."""
    kinds = alignment["texts"].map(lambda texts: texts.partition(" ")[2])  # without the number of pairs
    families = []
    for (start, kind, source), rows in alignment.groupby(["start", kinds, "source"], sort=True):
        last = set(rows.drop_duplicates(["run_id", "language"], keep="last")["probe_id"])
        rows = rows[rows["probe_id"].isin(last)]
        if rows["language"].nunique() > 1:
            own = rows["run_language"] == rows["language"]
            line = _lines(rows.assign(run_language=rows["run_language"].where(~own, "")))
            families.append(Family(str(source), f"{start}. {kind}.", rows.assign(line=line)))
    return families


def cka_lines(group: Group) -> list[tuple[str, pd.DataFrame]]:
    """Return the CKA rows of each line, by the model it was compared with."""
    rows = group.rows[group.rows["against"] != ""]
    rows = rows.assign(line=rows["line"] + " and " + rows["against"])
    return _ordered(rows[rows["measure"].isin(CKA_MEASURES)])


def _ordered(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    order = method_order(rows)
    first = rows.drop_duplicates("line")
    lines = zip(first["line"], first["method"], strict=True)
    names = sorted((line == BASE, order.index(method), line) for line, method in lines)
    return [(line, rows[rows["line"] == line]) for _, _, line in names]


def _lines(rows: pd.DataFrame) -> pd.Series[str]:
    """Return the line of each row: its method, and whatever else varies between the runs of a figure but the seed."""
    runs = rows[rows["run_id"] != ""]
    ratio = rows["tl_ratio"].map(lambda value: f"{100 * value:g} %")
    label = rows["method"].astype(str)
    for key, texts in (("setting", rows["setting"]), ("run_language", rows["run_language"]), ("tl_ratio", ratio)):
        if runs[key].nunique() > 1:
            label = label + ", " + texts
    return label.where(rows["run_id"] != "", BASE)
