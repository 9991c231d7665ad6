"""Builds the tidy table that the whole analysis reads from rows of values, one for each run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from analysis.columns import CONDITIONS, SETTINGS
from analysis.naming import DEFAULT_HEADLINE, DEFAULT_SOURCE
from analysis.runs.cautions import cautions
from analysis.runs.design import DONE_SINCE, Design, Issue, groups_by_cells, missing_cells, single_methods
from analysis.runs.methods import name_methods, name_settings
from analysis.runs.predictions import Answers
from whichlora.config.spec import NO_SOURCE
from whichlora.data.tasks import TASKS, PairTask

if TYPE_CHECKING:
    from mlflow.entities import Run

REQUIRED = ("variant", "arm", "task", "model", "language", "tl_ratio", "seed")
OUTCOMES = ("en", "tl")
SCORES = {outcome: f"test/{outcome}/f1" for outcome in OUTCOMES}
NUMBERS = (
    *("tl_ratio", "seed", "train_size", "validation_size", "test_size", "rank", "alpha", "dropout", "learning_rate"),
    *("epochs", "batch_size", "warmup", "weight_decay"),
)
"""Columns other than metrics that hold numbers."""
_GAP_RISES = {"trained": "gain/trained", "control": "gain/control"}
"""The metrics that runs on word pairs have instead of F1: the rise of the centred gap, by set of pairs."""
PACKED = "train/packed"
"""The metric that counts the runs trained together in one pass, this one included."""
_SECONDS = ("train/seconds", "train/examples_per_second", "train/price")
_COLUMNS = (
    *("setting", "method", "task", "model", "language", "tl_ratio", "seed", "outcome", "f1", "adapter", "run_id"),
    *("variant", "arm", "base_f1", *SETTINGS, *(key for key in CONDITIONS if key not in ("task", "model"))),
)
_EMPTY = pd.DataFrame(columns=[*_COLUMNS, "name", "artifact_uri"])


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The runs of the experiments.

    Attributes:
        table: one row per result, that is per run and outcome: setting, method, task, model, language, tl_ratio (0 to
            1), seed, outcome ("en" for the source language, "tl" for the target), f1 (the headline metric of the task,
            0 to 1), adapter (training fingerprint), run_id, variant, arm, the
            other logged spec fields, every metric under its name, `base_f1`, and `artifact_uri`. Source results that
            one adapter has for several languages are one row with language "".
        design: which runs were found, missing, duplicate or failed.
        injected: one row per lexical injection run (trained on word pairs), with the same columns except f1 and
            base_f1; the similarities are among the metrics. The outcome is always "tl", `pool_layer` is the block of
            the loss, and `retained` is the task that the run was scored on without training for it.
        probes: the MLflow runs of kind `probe`, unprocessed; read by `language_probes.fetch` and
            `representation_probes.fetch`.
        comparisons: the MLflow runs of kind `comparison`, unprocessed; read by `comparison_answers.fetch`.
        answers: answers to single items that came with results from files, by run id and outcome.
    """

    table: pd.DataFrame
    design: Design
    injected: pd.DataFrame = field(default_factory=lambda: _EMPTY)
    probes: tuple[Run, ...] = ()
    comparisons: tuple[Run, ...] = ()
    answers: Mapping[tuple[str, str], Answers] = field(default_factory=dict)


def tidy(raw: pd.DataFrame, *, experiments: tuple[str, ...], others: Mapping[str, int]) -> Runs:
    """Build the table from one row per run; account for each excluded run in the design."""
    states = _group_by_status(_with_defaults(raw))
    # Earlier reports are not counted, or a repeated report would differ from the first. Probes have a separate section,
    # and so has the answer of a comparison.
    others = {kind: n for kind, n in others.items() if kind not in ("run", "report", "probe", "comparison")}
    finished = states.pop("finished")
    if finished.empty:
        return Runs(table=_EMPTY, design=Design(experiments=experiments, others=others, runs=len(raw), **states))
    paired = finished["task"].map(trains_pairs).astype(bool)
    compared = _named(finished[~paired], SCORES, "F1")
    pairs = finished[paired]
    pairs = pairs.assign(pool_layer=pairs["scoring"].map(_pool_layer), scoring="", outcome="tl")
    injected = _named(pairs, _GAP_RISES, "the rise", (*SETTINGS, "pool_layer"))
    table = _results(compared.frame) if len(compared.frame) else _EMPTY
    both = [part for part in (compared, injected) if len(part.frame)]
    everything = pd.concat([part.frame for part in both], ignore_index=True)
    tasks = {*everything["task"], *everything["retained"]}
    design = Design(
        experiments=experiments,
        others=others,
        runs=len(raw),
        used=tuple(compared.frame["run_id"]),
        injected=tuple(injected.frame["run_id"]),
        adapters=compared.frame["adapter"].nunique(),
        shared_english=_with_source(compared.frame) - int((table["outcome"] == "en").sum()),
        duplicates=tuple(issue for part in both for issue in part.duplicates),
        merged=tuple(sentence for part in both for sentence in part.merged),
        missing=tuple(cell for part in both for cell in missing_cells(part.frame)),
        groups=groups_by_cells(compared.frame),
        single=single_methods(compared.frame),
        notes=(*dict.fromkeys(note for part in both for note in part.notes), *_notes(everything)),
        cautions=cautions(finished, everything, (*SCORES.values(), *_GAP_RISES.values())),
        synthetic=tuple(sorted(task for task in tasks if task in TASKS and TASKS[task].synthetic)),
        **states,
    )
    return Runs(table=table, design=design, injected=injected.frame)


def _with_defaults(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a source language and a headline metric, which older runs do not name."""
    for column, default in (("source_language", DEFAULT_SOURCE), ("headline", DEFAULT_HEADLINE)):
        given = raw[column] if column in raw else pd.Series(None, raw.index, dtype=object)
        raw = raw.assign(**{column: given.where(given.notna() & (given != ""), default)})
    return raw


def trains_pairs(task: str) -> bool:
    """Return whether a task trains on word pairs, so that its runs have similarities instead of F1."""
    return task in TASKS and issubclass(TASKS[task], PairTask)


def _with_source(frame: pd.DataFrame) -> int:
    return int((frame["source_language"] != NO_SOURCE).sum()) if len(frame) else 0


class _Named(NamedTuple):
    """Runs with their settings and methods, one per cell, with duplicates, merges and notes."""

    frame: pd.DataFrame
    duplicates: tuple[Issue, ...] = ()
    merged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _named(frame: pd.DataFrame, scores: Mapping[str, str], metric: str, fields: Sequence[str] = SETTINGS) -> _Named:
    if frame.empty:
        return _Named(_EMPTY)
    frame, repeated = _newest(frame, ["fingerprint"], "is the same run, done twice", scores, metric)
    frame, merged, notes = name_methods(name_settings(frame), fields)
    cell = ["setting", "method", "language", "tl_ratio", "seed"]
    frame, replaced = _newest(frame, cell, "has the same options, but other data, prompts or versions", scores, metric)
    frame = frame.sort_values([*cell, "run_id"], kind="stable").reset_index(drop=True)
    return _Named(frame, (*repeated, *replaced), merged, notes)


def _pool_layer(scoring: str) -> str:
    """Return the block from the scoring of a word-pair run, such as "layer-1" or "layer-1-first-token"."""
    layer, _, first = str(scoring).removeprefix("layer-").partition("-")
    return f"{layer} with the first token" if first else layer


def _group_by_status(raw: pd.DataFrame) -> dict[str, Any]:
    """Group runs by status: finished (a frame), failed, unfinished and incomplete (issues)."""
    parts: dict[str, Any] = {"failed": [], "unfinished": [], "incomplete": []}
    complete = []
    done = set(raw.loc[raw["status"] == "FINISHED", "fingerprint"].dropna()) if len(raw) else set[str]()
    for position, row in enumerate(raw.to_dict("records")):
        suffix = DONE_SINCE if row["fingerprint"] in done else ""
        if row["status"] in ("FAILED", "KILLED"):
            parts["failed"].append(Issue(row["run_id"], row["name"], (row["error"] or "without a reason") + suffix))
        elif row["status"] != "FINISHED":
            parts["unfinished"].append(Issue(row["run_id"], row["name"], row["status"].lower() + suffix))
        elif row["defects"]:
            parts["incomplete"].append(Issue(row["run_id"], row["name"], row["defects"]))
        else:
            complete.append(position)
    finished = raw.drop(columns="defects", errors="ignore").iloc[complete].copy()
    if complete:
        finished["seed"] = finished["seed"].astype(int)
        for key in (*SETTINGS, *CONDITIONS):
            if key not in finished:
                finished[key] = math.nan if key in NUMBERS else ""
        # Runs from before there were chat templates, and lines of files that do not give one.
        finished["chat_template"] = finished["chat_template"].replace("", math.nan).fillna("none")
        fallback = "run:" + finished["run_id"]
        finished["fingerprint"] = finished["fingerprint"].fillna(fallback)
        finished["adapter"] = finished.pop("training_fingerprint").fillna(_adapters(finished))
        finished = _without_shared_costs(finished)
    return {"finished": finished, **{key: tuple(issues) for key, issues in parts.items()}}


def _adapters(frame: pd.DataFrame) -> pd.Series[str]:
    """Return names for the adapters of runs that name none.

    Trained without target items, an adapter does not depend on the target language. So runs at ratio 0 that differ in
    nothing but the language, with one English score, are of one adapter: to count it once for each would make chance
    differences look certain.
    """
    key = [*(k for k in REQUIRED if k != "language"), *SETTINGS, *(k for k in CONDITIONS if k not in REQUIRED)]
    own = "run:" + frame["run_id"]
    first = own.groupby([frame[k] for k in (*key, SCORES["en"]) if k in frame], dropna=False).transform("first")
    return own.mask(frame["tl_ratio"] == 0, first)


def _without_shared_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Blank the time and memory of runs that trained in one pass with others, because they are shared costs."""
    if PACKED not in frame:
        return frame
    packed = frame[PACKED].fillna(1) > 1
    costs = [c for c in map(str, frame) if c in _SECONDS or c.startswith(("gpu/", "host/"))]
    return frame.assign(**{cost: frame[cost].mask(packed) for cost in costs})


def required_columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a run must have: of a task without a source language, no score in it."""
    if trains_pairs(str(row.get("task"))):
        return (*REQUIRED, *_GAP_RISES.values())
    outcomes = ("tl",) if row.get("source_language") == NO_SOURCE else OUTCOMES
    return (*REQUIRED, *(f"test/{outcome}/{row.get('headline') or DEFAULT_HEADLINE}" for outcome in outcomes))


def _newest(
    frame: pd.DataFrame, key: Sequence[str], reason: str, scores: Mapping[str, str], label: str
) -> tuple[pd.DataFrame, tuple[Issue, ...]]:
    """Keep the last run to end of each key; return the others as issues that name differing scores."""
    ordered = frame.sort_values(["ended", "run_id"], kind="stable")
    kept = ordered.drop_duplicates(key, keep="last").set_index(list(key), drop=False)
    issues = []
    for row in ordered[ordered.duplicated(key, keep="last")].to_dict("records"):
        winner = kept.loc[tuple(row[k] for k in key) if len(key) > 1 else row[key[0]]]
        differences = ", ".join(
            f"{name} {row[metric]:.4f} there and {winner[metric]:.4f} in the one used"
            for name, metric in scores.items()
            if metric in row and row[metric] != winner[metric] and row[metric] == row[metric]
        )
        text = f"{reason} as {winner['run_id']}, which ended later and is used"
        issues.append(
            Issue(row["run_id"], row["name"], text + (f"; {label} differs: {differences}" if differences else ""))
        )
    return kept.reset_index(drop=True), tuple(issues)


def _results(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and outcome, with shared source results of one adapter once.

    The score is the headline metric of the run's task. A run without a source language has one row.
    """
    parts = []
    for outcome in OUTCOMES:
        own = frame if outcome == "tl" else frame[frame["source_language"] != NO_SOURCE]
        if own.empty:
            continue
        part = own.assign(
            outcome=outcome,
            f1=_headline(own, f"test/{outcome}/"),
            base_f1=_headline(own, f"base/{outcome}/"),
        )
        parts.append(_english_once(part) if outcome == "en" else part)
    table = pd.concat(parts, ignore_index=True)
    return table[[*_COLUMNS, *sorted(set(table.columns) - set(_COLUMNS))]]


def _headline(frame: pd.DataFrame, prefix: str) -> pd.Series[float]:
    """Return each run's headline metric of a test set."""
    values = pd.Series(math.nan, frame.index)
    for metric, runs in frame.groupby("headline"):
        if f"{prefix}{metric}" in runs:
            values[runs.index] = runs[f"{prefix}{metric}"].astype(float)
    return values


def _english_once(english: pd.DataFrame) -> pd.DataFrame:
    """Merge English results that one adapter has for several languages into one row with language ""."""
    owner = ["setting", "method", "tl_ratio", "seed"]
    key = [*owner, "adapter", "test_en_digest"]
    shared = english.groupby(key, sort=False)["language"].transform("nunique") > 1
    # If any method shares English results at a ratio, a method with runs in one language belongs to the same block.
    in_block = shared.groupby([english["setting"], english["tl_ratio"]]).transform("any")
    single_adapter = english.groupby(owner, sort=False)["adapter"].transform("nunique") == 1
    merged = shared | (in_block & single_adapter)
    return english.assign(language=english["language"].mask(merged, "")).drop_duplicates([*key, "language"])


def _notes(frame: pd.DataFrame) -> tuple[str, ...]:
    notes = []
    own = "run:" + frame["run_id"]
    if assumed := int((frame["adapter"].isin(set(own)) & (frame["adapter"] != own)).sum()):
        notes.append(
            f"{assumed} of the results at ratio 0 name no adapter and are counted as those of another result's, which "
            "differs from them in the language alone and has the same English score."
        )
    if PACKED in frame and (packed := int((frame[PACKED].fillna(1) > 1).sum())):
        count = "1 run" if packed == 1 else f"{packed} runs"
        notes.append(f"{count} trained in one pass with others (pack): their time and memory are not reported.")
    for package, values in mixed_versions(frame).items():
        notes.append(f"The runs were made with several versions of {package}: {', '.join(values)}.")
    return tuple(notes)


def mixed_versions(frame: pd.DataFrame) -> dict[str, list[str]]:
    """Return by package its versions in the runs, for packages with more than one."""
    columns = sorted(column for column in map(str, frame) if column.startswith("version/"))
    mixed = {column: sorted(set(frame[column].dropna())) for column in columns}
    return {column.removeprefix("version/"): values for column, values in mixed.items() if len(values) > 1}
