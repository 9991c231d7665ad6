"""What a study has found and what it cost: figures for the study's run in MLflow, and a table over the variants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from optuna.trial import TrialState

from tuning.finalists import RECOMMENDED, Finalist
from tuning.space import SEARCHED, describe_point
from tuning.study_config import FRESH_SEEDS, TUNING_SEED
from whichlora.config.options import MAIN
from whichlora.tracking.runs import RunLog

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from tuning.optuna_study import Study
    from whichlora.tracking.runs import Tracker


_OF_METHOD = (*SEARCHED, "batch_size", "layers", "quantization")
"""Options that an arm states; the others belong to the whole experiment."""
_RATES = 6
"""More rates than this are put together in thirds of a decade."""


def trials_table(study: Study) -> pd.DataFrame:
    """Return a row for each trial that counts: its point, value, seed and seconds.

    The value of a pruned trial is the last that it reported.
    """
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "value": _value(trial),
            "seed": trial.user_attrs.get("seed"),
            "seconds": trial.user_attrs.get("seconds"),
            "run_id": trial.user_attrs.get("run_id"),
            **trial.params,
        }
        for trial in sorted(study.counted(), key=lambda t: t.number)
    ]
    return pd.DataFrame(rows)


def expected_maximum(values: Sequence[float]) -> np.ndarray[Any, Any]:
    """Return the expected best of n trials for n = 1 .. len(values), if they were drawn at random from those made.

    Dodge et al. 2019 (arXiv 1909.03004), equation 7: with the empirical distribution F of the values v,
    E[max] = sum over v of v (F(v)^n - F(v-)^n).
    """
    v = np.sort(np.asarray(values, dtype=float))
    n = np.arange(1, len(v) + 1)
    above = (np.arange(1, len(v) + 1) / len(v))[None, :] ** n[:, None]
    below = (np.arange(len(v)) / len(v))[None, :] ** n[:, None]
    result: np.ndarray[Any, Any] = (v[None, :] * (above - below)).sum(axis=1)
    return result


def curve(table: pd.DataFrame) -> pd.DataFrame:
    """Return the best value after n trials, as it was and as it is to be expected, and the seconds until then."""
    if table.empty:
        return pd.DataFrame(columns=["trials", "best", "expected_best", "seconds"])
    return pd.DataFrame(
        {
            "trials": range(1, len(table) + 1),
            "best": table["value"].cummax(),
            "expected_best": expected_maximum(table["value"].tolist()),
            "seconds": table["seconds"].cumsum(),
        }
    )


def by_learning_rate(table: pd.DataFrame) -> pd.DataFrame:
    """Return the complete trials, best and mean of each learning rate, to a third of a decade where there are many."""
    if "learning_rate" not in table:
        return pd.DataFrame(columns=["learning_rate", "trials", "best", "mean"])
    complete = table[table["state"] == "complete"]
    rate = complete["learning_rate"]
    rounded = rate if rate.nunique() <= _RATES else 10 ** ((np.log10(rate) * 3).round() / 3)
    grouped = complete.groupby(rounded)["value"].agg(["size", "max", "mean"])
    grouped.columns = pd.Index(["trials", "best", "mean"])
    return grouped.rename_axis("learning_rate").reset_index()


def sensitivity(rates: pd.DataFrame) -> float | None:
    """Return how far the best value falls between the best and the worst learning rate; None for one rate alone."""
    return float(rates["best"].max() - rates["best"].min()) if len(rates) > 1 else None


def log_results(study: Study, found: Sequence[Finalist], tracker: Tracker) -> None:
    """Log on the study's run its values, tables and plots, and the best point as an arm for an experiment's file."""
    log = RunLog(tracker.client, study.run_id)
    table = trials_table(study)
    rates = by_learning_rate(table)
    states = {state.name.lower(): len(study.trials(state)) for state in TrialState}
    log.params(
        {
            "study": study.name,
            "variant": study.setting.variant.name,
            "objective": study.setting.objective.text,
            "pruner": study.setting.pruner,
            "space": study.setting.space.to_json(),
            "tuning_seed": TUNING_SEED,
            "fresh_seeds": FRESH_SEEDS,
        }
    )
    metrics = {f"trials/{state}": float(n) for state, n in states.items()}
    metrics["tuning/seconds"] = study.seconds()
    metrics["fresh/seconds"] = sum(c.seconds for c in found)
    if (falls := sensitivity(rates)) is not None:
        metrics["tuning/sensitivity"] = falls
    best = winner(found)
    if best is not None:
        metrics["best/fresh_f1"] = best.score
        if best.tuned is not None:
            metrics["best/f1"] = best.tuned
    log.metrics(metrics)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table.to_csv(folder / "trials.csv", index=False)
        curve(table).to_csv(folder / "curve.csv", index=False)
        rates.to_csv(folder / "learning_rates.csv", index=False)
        if best is not None:
            (folder / "best.yaml").write_text(arm(study, best))
        _plots(study, folder)
        log.artifacts(folder, "study")
    tracker.client.set_terminated(study.run_id, "FINISHED" if len(table) else "FAILED")


def winner(found: Sequence[Finalist]) -> Finalist | None:
    """Return the contender with the best mean over the fresh seeds; None before every one has its scores."""
    complete = [c for c in found if len(c.fresh) == len(FRESH_SEEDS)]
    return max(complete, key=lambda c: c.score) if complete and len(complete) == len(found) else None


def arm(study: Study, best: Finalist) -> str:
    """Return the best point as an arm of an experiment's YAML file."""
    given = {n: v for n in _OF_METHOD if (v := getattr(study.setting.options, n)) is not None and str(v) != MAIN[n][0]}
    options: dict[str, Any] = {"variant": study.setting.variant.name}
    if best.recommended:
        options |= {"arm": "recommended", **given}
    else:
        searched = {option: value for option, value in best.point.items() if option in SEARCHED}
        own = {option: value for option, value in best.point.items() if option not in SEARCHED}
        options |= {"arm": "tuned", **given, **searched, **({"options": own} if own else {})}
    return yaml.safe_dump([options | {"source": f"study {study.name}"}], sort_keys=False, width=1000)


def summary(studies: Sequence[tuple[Study, Sequence[Finalist]]]) -> str:
    """Return a Markdown table of what each variant's tuning cost and found, and the points that are undecided."""
    head = [
        "variant",
        "trials",
        "pruned",
        "seconds of trials",
        "of training with fresh seeds",
        "best of the study",
        "best, fresh seeds",
        "recommended arm, fresh seeds",
    ]
    head += ["falls with the rate by", "best point"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    notes = []
    for study, found in studies:
        table = trials_table(study)
        best = winner(found)
        recommended = next((c for c in found if c.recommended), None)
        pruned = int((table["state"] == "pruned").sum()) if len(table) else 0
        cells = [
            study.setting.variant.name,
            str(len(table)),
            str(pruned),
            f"{study.seconds():.0f}",
            f"{sum(c.seconds for c in found):.0f}",
            _number(table.loc[table["state"] == "complete", "value"].max() if len(table) else None),
            _number(best.score if best else None),
            _number(recommended.score if recommended and recommended.fresh else None),
            _number(sensitivity(by_learning_rate(table))),
            "-" if best is None else RECOMMENDED if best.recommended else describe_point(best.point),
        ]
        lines.append("| " + " | ".join(cells) + " |")
        if best is not None and not best.recommended:
            notes += [
                f"{study.setting.variant.name}: {name} is undecided, the best is on the {end} edge of the space"
                for name, end in study.setting.space.edges(best.point).items()
            ]
    return "\n".join([*lines, *notes])


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _value(trial: FrozenTrial) -> float:
    if trial.values:
        return float(trial.values[0])
    reported = trial.intermediate_values
    return float(reported[max(reported)]) if reported else float("nan")


def _plots(study: Study, folder: Path) -> None:
    """Draw the history, and the importance of the parameters where there are enough trials to tell."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    complete = study.trials(TrialState.COMPLETE)
    target = None if study.setting.objective.cost is None else lambda trial: trial.values[0]
    drawings: dict[str, Callable[..., Any]] = {"history.png": plot_optimization_history} if complete else {}
    varied = [n for n in study.setting.space.dimensions if len({str(t.params.get(n)) for t in complete}) > 1]
    if len(complete) >= 4 and varied:
        drawings["importance.png"] = plot_param_importances
    for name, draw in drawings.items():
        with mpl.rc_context():  # Optuna sets a style of its own and leaves it set
            draw(study.optuna, target=target, target_name="validation F1")
            plt.tight_layout()
            plt.savefig(folder / name, dpi=120)
            plt.close("all")
