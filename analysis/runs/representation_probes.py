"""Alignment and weight probes: how alike translations are at each layer, and what training did to the weights.

They are not set beside F1: a probe of any finished run of the report, or of a base model it starts from, is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

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
from analysis.runs.pull import Runs

if TYPE_CHECKING:
    from mlflow.entities import Run

ALIGNMENT, WEIGHTS = REPRESENTATION_KINDS
GAP, P1, MRR = "cosine/gap", "p1", "mrr"
ALIGNMENT_MEASURES = (
    *(f"{GAP}/{space}" for space in ("centred", "raw")),
    *(f"{measure}/{way}/centred" for measure in (P1, MRR) for way in ("to", "from")),
)
"""What is told of an alignment probe; the CSV file has all that it measured."""
CKA_MEASURES = ("cka/english", "cka/translation")
SIZE_MEASURES = ("relative_norm", "spectral_norm", "stable_rank", "rank")
OVERLAP_MEASURES = {"overlap_out": "chance_out", "overlap_in": "chance_in"}
"""And what random directions come to."""
_HEADS = {ALIGNMENT: ALIGNMENT_MEASURES[0], WEIGHTS: SIZE_MEASURES[0]}
"""A measure that every probe of the kind has."""
_START = ("model_digest", "precision", "quantization")
_MADE = ("kind", "against", "language", "pairs", "first_token", "items_digest")
_PLACE = ("setting", "method", "variant", "tl_ratio", "seed")
COMPARABLE_BY = ("start", "language", "texts", "items_digest")
"""What alignment probes share that stand in one figure."""
_COLUMNS = (
    *("probe_id", "run_id", *_PLACE, "run_language", *COMPARABLE_BY, "against", *LAYER_COLUMNS),
    "chance_p1",
    "chance_mrr",
)


@dataclass(frozen=True, kw_only=True)
class RepresentationProbes:
    """What alignment and weight probes hold, and what became of each.

    Attributes:
        alignment, weights: a row per probe, layer and measure, as in its `layers.parquet`, with probe_id, and of the
            run it looked into run_id ("" for a base model), setting, method, variant, tl_ratio, seed and run_language;
            `against`, the name of the other model, if any. For alignment what it has read (`TEXTS`: the base model and
            its precision, the language, how many pairs and how, their digest), and what chance finds.
        failed, unfinished, duplicates, left_out: probes that are not shown, and why.
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


def fetch(found: Runs, *, cache: Path | None = None) -> RepresentationProbes:
    """Read the alignment and weight probes among what was pulled, of the runs that the report is about."""
    probes = [run for run in found.probes if run.data.params.get("kind") in REPRESENTATION_KINDS]
    probes.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
    failed, unfinished, finished = group_by_status(probes)
    places = _Places(found)
    contents = read_layers(finished, cache)
    left_out: list[Issue] = []
    rows: dict[tuple[str, ...], tuple[Run, Mapping[str, Any]]] = {}
    duplicates = []
    for run in finished:
        place = places.of(run)
        known = _HEADS[run.data.params["kind"]]
        if place is None:
            left_out.append(probe_issue(run, "looks into no run, or base model, of those used here"))
        elif run.info.run_id not in contents or known not in contents[run.info.run_id]["measure"].to_pylist():
            left_out.append(probe_issue(run, "has no layers.parquet of its kind that can be read"))
        else:
            key = (place["run_id"], *(run.data.params.get(name, "") for name in (*_START, *_MADE)))
            if key in rows:
                text = (
                    f"is of the same model and made in the same way as {run.info.run_id}, which ended later and is used"
                )
                duplicates.append(probe_issue(rows[key][0], text))
            rows[key] = (run, place)
    frames: dict[str, list[pd.DataFrame]] = {kind: [] for kind in REPRESENTATION_KINDS}
    for run, place in rows.values():
        table = contents[run.info.run_id].to_pandas()
        frames[run.data.params["kind"]].append(table.assign(**_of(run, place, places)))
    order = [*COMPARABLE_BY, "setting", "run_language", "method", "tl_ratio", "seed", "probe_id", "measure", "layer"]
    made = {
        kind: pd.concat(parts, ignore_index=True).sort_values(order, kind="stable", ignore_index=True)[list(_COLUMNS)]
        for kind, parts in frames.items()
        if parts
    }
    return RepresentationProbes(
        **made, failed=failed, unfinished=unfinished, duplicates=tuple(duplicates), left_out=tuple(left_out)
    )


class _Places:
    """The runs of a report by what a probe knows of them: id, fingerprint, or what their base model is."""

    def __init__(self, found: Runs) -> None:
        rows: Sequence[Any] = [
            *found.table[found.table["outcome"] == "tl"].to_dict("records"),
            *found.injected.to_dict("records"),
        ]
        self._by_id = {row["run_id"]: row for row in rows}
        self._by_fingerprint = {row["fingerprint"]: row for row in rows if row.get("fingerprint")}
        self._bases = {self._start(row): row for row in reversed(rows)}

    def of(self, run: Run) -> Mapping[str, Any] | None:
        """Return the run that a probe looked into, or for a base model a run that starts from it; None for neither."""
        source, params = run.data.tags.get("whichlora.source"), run.data.params
        if source is not None:
            return self._by_id.get(source) or self._by_fingerprint.get(params.get("source_fingerprint", ""))
        row = self._bases.get(self._start(params))
        return None if row is None else {**row, "run_id": "", "method": BASE, "variant": UNTRAINED}

    def name(self, fingerprint: str) -> str:
        """Return what the other model of a comparison is called."""
        if fingerprint in ("", "base"):
            return BASE if fingerprint else ""
        row = self._by_fingerprint.get(fingerprint)
        return f"run {fingerprint[:8]}" if row is None else f"{row['method']}, seed {row['seed']}"

    def _start(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row.get(name, "")) for name in _START)


def _of(run: Run, place: Mapping[str, Any], places: _Places) -> dict[str, Any]:
    """Return what is known of a probe beside its table."""
    params, metrics = run.data.params, run.data.metrics
    pairs = {"words": "word pairs", "task": f"texts of {params.get('task', 'a task')}"}
    read = f"{params.get('items', '?')} {pairs.get(params.get('pairs', ''), 'pairs of a file')}, first token "
    own = place if place["run_id"] else {**place, "setting": "", "tl_ratio": math.nan, "seed": 0}
    quantized = [place["quantization"]] if place["quantization"] != "none" else []
    return {
        "probe_id": run.info.run_id,
        **{name: own[name] for name in ("run_id", *_PLACE)},
        "run_language": place["language"] if place["run_id"] else "",
        "start": ", ".join([place["model"], place["precision"], *quantized]),
        "language": params.get("language", ""),
        "texts": read + params.get("first_token", "drop"),
        "items_digest": params.get("items_digest", ""),
        "against": places.name(params.get("against", "")),
        **{f"chance_{name}": metrics.get(f"chance/{name}", math.nan) for name in (P1, MRR)},
    }


class Group(NamedTuple):
    """Alignment probes that can be set side by side: of the same texts, read in the same way, of one base model.

    `end` is that of the names of its tables and figures, `about` says what was read, and `rows` have the column `line`.
    """

    suffix: str
    language: str
    about: str
    rows: pd.DataFrame

    def lines(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the rows of each line, in the order of the methods, the base model's last.

        A run that was probed beside several other models is one run all the same: one of its probes counts.
        """
        once = set(self.rows.drop_duplicates("run_id", keep="last")["probe_id"])
        return _ordered(self.rows[self.rows["probe_id"].isin(once)])


def comparable_groups(alignment: pd.DataFrame) -> list[Group]:
    """Return the groups there are, by language."""
    known = alignment.groupby(list(COMPARABLE_BY), sort=True)
    several = alignment.groupby("language")["items_digest"].nunique().max() > 1 or alignment["start"].nunique() > 1
    return [
        Group(
            f"-{language}-{position}" if several else f"-{language}",
            str(language),
            f"{start}. {texts}, English and {language}.",
            rows.assign(line=_lines(rows)),
        )
        for position, ((start, language, texts, _), rows) in enumerate(known, 1)
    ]


def cka_lines(group: Group) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each line and other model that it was compared with."""
    rows = group.rows[group.rows["against"] != ""]
    rows = rows.assign(line=rows["line"] + " and " + rows["against"])
    return _ordered(rows[rows["measure"].isin(CKA_MEASURES)])


def _ordered(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    order = method_order(rows)
    first = rows.drop_duplicates("line")
    known = zip(first["line"], first["method"], strict=True)
    names = sorted((line == BASE, order.index(method), line) for line, method in known)
    return [(line, rows[rows["line"] == line]) for _, _, line in names]


def _lines(rows: pd.DataFrame) -> pd.Series[str]:
    """Name the line that each row belongs to: its method, and what else tells apart runs of a figure but the seed."""
    runs = rows[rows["run_id"] != ""]
    ratio = rows["tl_ratio"].map(lambda value: f"{100 * value:g} %")
    label = rows["method"].astype(str)
    for key, texts in (("setting", rows["setting"]), ("run_language", rows["run_language"]), ("tl_ratio", ratio)):
        if runs[key].nunique() > 1:
            label = label + ", " + texts
    return label.where(rows["run_id"] != "", BASE)
