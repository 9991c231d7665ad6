"""Registers the adapters of the method to take in MLflow's Model Registry, with the alias `champion`."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from analysis.registry import set_champion
from comparing.answer import Answer
from comparing.results import OUTCOMES, Results, languages_of
from whichlora.config.options import AUTO
from whichlora.masking import masked
from whichlora.tracking.logged_models import CHAMPION, model_of_run

_FORBIDDEN = str.maketrans(dict.fromkeys("/\\:", "-"))
"""The Model Registry refuses these characters in the name of a model."""
_RATIOS = {"en": 0.0, "tl": 1.0, "mean": 0.5}
"""The share of target items that suits each outcome: the runs whose ratio is nearest were trained most on its data."""


def register(name: str, answer: Answer, results: Results, client: MlflowClient, record: str) -> list[str]:
    """Register an adapter of the method to take for each language, and return a sentence for each.

    It is that of the seed with the median score: the best seed's score is partly luck, and the adapter would be no
    better than the others on new items.

    Args:
        name: of the registered models, followed by the language; `auto` for task and model.
        record: id of the comparison's run.
    """
    if answer.take is None:
        return []
    rule, table = results.comparison.rule, results.table()
    own = table[table["method"] == answer.take]
    sentences = []
    for setting in sorted(set(own["setting"])):
        for language in languages_of(own):
            cell = _cell(own[own["setting"] == setting], language, OUTCOMES[rule.primary], rule.primary)
            row, seeds = _median(cell), len(cell)
            prefix = f"{row['task']}-{row['model']}" if name == AUTO else name
            model = f"{prefix}-{language}".translate(_FORBIDDEN)
            evidence = {
                "comparison": record,
                "method": answer.take,
                "advice": answer.lead,
                "primary": rule.primary,
                "margin": f"{rule.margin:g}",
                "run": str(row["run_id"]),
                "language": language,
                "tl_ratio": f"{row['tl_ratio']:g}",
                "seed": str(row["seed"]),
                "test_score": f"{row['value']:.4f}",
            }
            sentences.append(_registered(model, client, evidence, seeds))
    return sentences


def _registered(model: str, client: MlflowClient, evidence: dict[str, str], seeds: int) -> str:
    run_id = evidence["run"]
    try:
        logged = model_of_run(client, run_id)
        if logged is None:
            return f"Not registered: run {run_id} has no logged model."
        version = set_champion(model, client, run_id, str(logged.model_id), evidence)
    except MlflowException as error:  # such as no permission, or a server without a registry
        return masked(f"Not registered: {' '.join(str(error).split())[:200]}")
    return (
        f"Registered: models:/{model}@{CHAMPION}, version {version.version}, the adapter of seed {evidence['seed']}, "
        f"the median of {seeds}."
    )


def _cell(own: pd.DataFrame, language: str, outcomes: Sequence[str], primary: str) -> pd.DataFrame:
    """Return the method's runs in a language at the ratio that suits the primary outcome, with their score as `value`.

    The source score of an adapter that serves several languages is that of each of its runs.
    """
    target = own[(own["language"] == language) & (own["outcome"] == "tl")]
    ratio = min(set(target["tl_ratio"]), key=lambda ratio: (abs(ratio - _RATIOS[primary]), -ratio))
    target = target[target["tl_ratio"] == ratio]
    source = own[own["outcome"] == "en"].groupby(["seed", "adapter"])["f1"].mean().rename("en")
    parts = target.assign(tl=target["f1"]).join(source, on=["seed", "adapter"])
    value: pd.Series[float] = parts[list(outcomes)].astype(float).mean(axis=1)
    found: pd.DataFrame = target.assign(value=value)
    return found


def _median(cell: pd.DataFrame) -> pd.Series:
    """Return the row with the median score; of an even number the lower of the two in the middle."""
    ordered = cell.sort_values(["value", "seed"], kind="stable")
    return ordered.iloc[(len(ordered) - 1) // 2]
