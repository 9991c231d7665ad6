"""Registers the model of the winning method in MLflow's Model Registry, with the alias `champion` and its evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis.measures import floored_blocks
from analysis.measures.scores import mean_outcome
from analysis.records import NotTestable, Record
from analysis.report.winner import decision_text, winner
from whichlora.errors import OptionError
from whichlora.tracking.client import search_all
from whichlora.tracking.logged_models import CHAMPION, model_of_run

_TAG = 5000
"""Characters to which tags are cut; the limit of older servers."""
_ROLES = {"en": ("en",), "tl": ("tl",), "mean": ("en", "tl")}
_RATIOS = {"en": 0.0, "tl": 1.0, "mean": 0.5}
"""The share of target items that suits each outcome: the runs whose ratio is nearest were trained most on its data."""


def check_registrable(name: str, table: pd.DataFrame, language: str | None = None) -> None:
    """Check that the runs have one model to register an adapter of, and are of the language asked for, if any.

    Raises:
        OptionError: they are of several tasks, base models or conditions, none is a run in MLflow, or none is of this
            language.
    """
    if table.empty:
        raise OptionError("register", name, "needs runs with F1 or the task's own metric, and the experiment has none")
    settings = sorted(set(table["setting"]))
    if len(settings) > 1:
        allowed = f"the experiment compares methods in {len(settings)} settings ({'; '.join(settings)}), and an adapter"
        raise OptionError("register", name, f"{allowed} fits one of them: register from an experiment with one setting")
    languages = sorted({*table["language"]} - {""})
    if language is not None and language not in languages:
        raise OptionError("register_language", language, f"must be a language of the runs: {', '.join(languages)}")


def register(
    name: str,
    records: Sequence[Record],
    table: pd.DataFrame,
    client: MlflowClient,
    *,
    primary: str,
    margin: float,
    origin: Mapping[str, str],
    language: str | None = None,
) -> str:
    """Register the model of one run of the winning method, and set the alias `champion`.

    The run comes from one cell (see `_cell`), whose seeds are compared by validation score. Test scores have no part
    in the choice of the run: the champion's would be too high. The version of an earlier call with the same model and
    evidence is used again.

    Args:
        table: one row per result, see `tidy.Runs`.
        primary: the outcome whose validation score counts: `en`, `tl` or `mean`.
        margin: in points of F1.
        origin: further tags of the version, without their prefix `whichlora.`: where the evidence is.
        language: the target language of the run; None for the first of the cell's ratio.

    Returns:
        A sentence that says what was registered.

    Raises:
        OptionError: no method can be chosen, or its run has no validation score in this outcome or no logged model.
    """
    try:
        found = winner(records, primary, margin)
    except NotTestable as reason:
        raise OptionError("register", name, f"there is no winner: {reason}") from reason
    cell, others = _cell(name, found.method, table, primary, language)
    row, score = _best_validated(name, found.method, cell, primary)
    run_id = str(row["run_id"])
    model = model_of_run(client, run_id)
    if model is None:
        allowed = f"run {run_id} of {_described(row)}, the best validated one, has no logged model: it was "
        allowed += (
            "made by an older version or its model was deleted; delete the run in the UI and repeat the experiment"
        )
        raise OptionError("register", name, allowed)
    evidence = {
        **origin,
        "method": found.method,
        "decision": found.decision,
        "not_distinguished_from": ", ".join(found.rivals) or "none",
        "compared": ", ".join(found.compared),
        "score": found.score,
        "differences": found.differences,
        "test_score": _test_score(row, primary),
        "advice": found.advice,
        "primary": primary,
        "margin": f"{margin:g}",
        "run": run_id,
        "language": str(row["language"]),
        "tl_ratio": f"{row['tl_ratio']:g}",
        "seed": str(row["seed"]),
        "validation_score": f"{score:.4f}",
    }
    version = set_champion(name, client, run_id, str(model.model_id), evidence)
    return (
        f"Registered {found.method} as models:/{name}@{CHAMPION}, version {version.version}: {found.score}; "
        f"{decision_text(found, margin)}. The model is that of {_described(row)}, seed {row['seed']}."
        + (f" Other languages (register_language): {', '.join(others)}." if others else "")
    )


def set_champion(
    name: str, client: MlflowClient, run_id: str, model_id: str, evidence: Mapping[str, str]
) -> ModelVersion:
    """Give the alias `champion` to the version with the model of a run, and return it.

    Args:
        evidence: tags of the version, without their prefix `whichlora.`.
    """
    tags = {f"whichlora.{key}": value[:_TAG] for key, value in evidence.items()}
    version = _version(name, client, run_id, model_id, tags)
    client.set_registered_model_alias(name, CHAMPION, version.version)
    return version


def _version(name: str, client: MlflowClient, run_id: str, model_id: str, tags: Mapping[str, str]) -> ModelVersion:
    """Return the version of a registered model with this source and these tags, created unless it exists."""
    source = f"models:/{model_id}"
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version: ModelVersion
    known = search_all(client.search_model_versions, f"run_id = '{run_id}'")
    for version in known:
        if (version.name, version.source) == (name, source) and tags.items() <= version.tags.items():
            return version
    created: ModelVersion = client.create_model_version(name, source, run_id, tags=dict(tags), model_id=model_id)
    return created


def _test_score(row: Mapping[str, Any], primary: str) -> str:
    """Return the scores of a run on the test items of an outcome, with their 95 % intervals over items, in words."""
    texts = []
    for role in _ROLES[primary]:
        metric = f"test/{role}/{row.get('headline') or 'f1'}"
        low, high = (float(row.get(f"{metric}_{end}", math.nan)) for end in ("low", "high"))
        around = f" (95 % CI over test items {low:.3f} to {high:.3f})" if math.isfinite(low + high) else ""
        texts.append(f"{metric} {float(row[metric]):.3f}{around}")
    return ", ".join(texts)


def _cell(
    name: str, method: str, table: pd.DataFrame, primary: str, language: str | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the method's runs in one language and ratio, and its other languages.

    Scores of several languages cannot be compared, so neither the language nor the ratio is chosen by them: of the
    cells whose results count (see `floored_blocks`), it is the one with the ratio that suits the primary outcome and,
    unless a language is asked for, the language that is first in the alphabet.
    """
    own = table[(table["method"] == method) & (table["outcome"] == "tl")]
    own = own[own["artifact_uri"].map(lambda uri: isinstance(uri, str) and uri != "")]  # results from files have none
    if own.empty:
        raise OptionError(
            "register", name, f"the results of {method}, the method to use, come from files, not from runs"
        )
    counted, _ = floored_blocks.split(mean_outcome(table) if primary == "mean" else table, primary)
    own = own[own["adapter"].isin(counted["adapter"])]  # an English result that languages share has no language
    languages = sorted(set(own["language"]))
    if not languages:
        allowed = f"all runs of {method}, the method to use, are in blocks that the primary analysis leaves out"
        raise OptionError("register", name, allowed)
    if language is not None and language not in languages:
        allowed = f"must be a language in which the runs of {method}, the method to use, count: {', '.join(languages)}"
        raise OptionError("register_language", language, allowed)
    own = own if language is None else own[own["language"] == language]
    ratio = min(set(own["tl_ratio"]), key=lambda ratio: (abs(ratio - _RATIOS[primary]), -ratio))
    own = own[own["tl_ratio"] == ratio]
    own = own[own["language"] == min(own["language"])]
    return own, [other for other in languages if other not in set(own["language"])]


def _described(row: Any) -> str:
    return f"{row['method']} in {row['language']} at ratio {row['tl_ratio']:g}"


def _best_validated(name: str, method: str, cell: pd.DataFrame, primary: str) -> tuple[Mapping[str, Any], float]:
    """Return the row and the validation score of the cell's run with the best one; of equal ones, the lowest seed."""
    scores = []
    for row in cell.to_dict("records"):
        headline = row.get("headline") or "f1"
        columns = [f"validation/{role}/{headline}" for role in _ROLES[primary]]
        values = [float(row.get(column, math.nan)) for column in columns]
        score = sum(values) / len(values)
        if math.isfinite(score):
            scores.append(((-score, row["seed"], str(row["run_id"])), row))
    if not scores:
        allowed = f"no run of {_described(cell.iloc[0])} has a validation score ({' and '.join(_ROLES[primary])}), "
        raise OptionError("register", name, f"{allowed}by which one is chosen")
    (score, *_), best = min(scores, key=lambda pair: pair[0])
    return {str(column): value for column, value in best.items()}, -score
