"""Logs metrics, tables and plots of each study to MLflow, and compares results and costs of the variants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from tuning import description
from tuning.divergence import WORST_F1, converged, diverged
from tuning.finalists import RECOMMENDED, Finalist
from tuning.optuna_study import Study
from tuning.space import SEARCHED, describe_point
from tuning.study_config import FRESH_SEEDS, TUNING_SEED
from whichlora.config.options import RUN_OPTIONS
from whichlora.csv_text import to_csv
from whichlora.tracking.runs import Tracker

_ARM_OPTIONS = (*SEARCHED, "batch_size", "layers", "quantization")
"""Options that an experiment's file sets per arm; the others apply to the whole experiment."""
_MAX_RATES = 6
"""Number of distinct learning rates above which they are grouped by thirds of a decade."""


def trials_table(study: Study) -> pd.DataFrame:
    """Return a row per counted trial with its point, value, seed and seconds.

    The value of a pruned trial is its last report, that of a diverged one 0.
    """
    rows = [
        {
            "trial": trial.number,
            "state": "diverged" if diverged(trial) else trial.state.name.lower(),
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
    """Return the expected maximum of n values drawn at random from `values`, for n = 1 .. len(values).

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
    """Return the best value after n trials, observed and expected, with the cumulative seconds."""
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
    """Return the number, best and mean value of complete trials per learning rate; many rates are grouped."""
    if "learning_rate" not in table:
        return pd.DataFrame(columns=["learning_rate", "trials", "best", "mean"])
    complete = table[table["state"] == "complete"]
    rate = complete["learning_rate"]
    rounded = rate if rate.nunique() <= _MAX_RATES else 10 ** ((np.log10(rate) * 3).round() / 3)
    grouped = complete.groupby(rounded)["value"].agg(["size", "max", "mean"])
    grouped.columns = pd.Index(["trials", "best", "mean"])
    return grouped.rename_axis("learning_rate").reset_index()


def sensitivity(rates: pd.DataFrame) -> float | None:
    """Return how far the best value drops from the best to the worst learning rate; None for a single rate."""
    return float(rates["best"].max() - rates["best"].min()) if len(rates) > 1 else None


def log_results(study: Study, finalists: Sequence[Finalist], tracker: Tracker) -> None:
    """Log metrics, tables and plots on the study's run, and the best point as an arm for an experiment's file."""
    log = study.log
    table = trials_table(study)
    rates = by_learning_rate(table)
    states = {state.name.lower(): len(study.trials(state)) for state in TrialState}
    log.params(
        {
            "study": study.name,
            "variant": study.config.variant.name,
            "objective": study.config.objective.text,
            "pruner": study.config.pruner,
            "space": study.config.space.to_json(),
            "tuning_seed": TUNING_SEED,
            "fresh_seeds": FRESH_SEEDS,
        }
    )
    metrics = {f"trials/{state}": float(n) for state, n in states.items()}
    metrics["trials/diverged"] = float(sum(map(diverged, study.counted())))
    metrics["tuning/seconds"] = study.seconds()
    metrics["fresh/seconds"] = sum(f.seconds for f in finalists)
    if (drop := sensitivity(rates)) is not None:
        metrics["tuning/sensitivity"] = drop
    best = winner(finalists)
    if best is not None:
        metrics["best/fresh_f1"] = best.score
        if best.tuned is not None:
            metrics["best/f1"] = best.tuned
    log.metrics(metrics)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, rows in (("trials", table), ("curve", curve(table)), ("learning_rates", rates)):
            (folder / f"{name}.csv").write_text(to_csv(rows), encoding="utf-8")
        if best is not None:
            (folder / "best.yaml").write_text(arm_yaml(study, best))
        _save_plots(study, folder)
        log.artifacts(folder, "study")
    log.describe(
        description.finished(study.about, summary([(study, finalists)]), arm_yaml(study, best) if best else None)
    )
    tracker.client.set_terminated(study.run_id, "FINISHED" if len(table) else "FAILED")


def winner(finalists: Sequence[Finalist]) -> Finalist | None:
    """Return the finalist with the best mean over the fresh seeds; None if scores are missing or all diverged."""
    if not all(f.scored for f in finalists):
        return None
    return max((f for f in finalists if not f.diverged), key=lambda f: f.score, default=None)


def arm_yaml(study: Study, best: Finalist) -> str:
    """Return the best point as an arm of an experiment's YAML file."""
    fixed = {
        n: v
        for n in _ARM_OPTIONS
        if (v := getattr(study.config.options, n)) is not None and str(v) != RUN_OPTIONS[n][0]
    }
    options: dict[str, Any] = {"variant": study.config.variant.name}
    if best.recommended:
        options |= {"arm": "recommended", **fixed}
    else:
        searched = {option: value for option, value in best.point.items() if option in SEARCHED}
        variant_options = {option: value for option, value in best.point.items() if option not in SEARCHED}
        options |= {"arm": "tuned", **fixed, **searched, **({"options": variant_options} if variant_options else {})}
    return yaml.safe_dump([options | {"source": f"study {study.name}"}], sort_keys=False, width=1000)


HEAD = (
    *("variant", "trials", "pruned", "seconds, trials", "seconds, fresh seeds", "best in the study"),
    *("best, fresh seeds", "recommended arm, fresh seeds", "drop over learning rates", "best point"),
)
"""Columns of the summary."""


def summary(studies: Sequence[tuple[Study, Sequence[Finalist]]]) -> str:
    """Return a Markdown table with costs and results per variant, and notes on optima at the edge of the space."""
    rows = [HEAD, ("---",) * len(HEAD), *(summary_row(*entry) for entry in studies)]
    lines = ["|" + "|".join(row) + "|" if row[0] == "---" else "| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, *(note for entry in studies for note in notes(*entry))])


def summary_row(study: Study, finalists: Sequence[Finalist]) -> tuple[str, ...]:
    """Return the costs and results of a variant, in the order of `HEAD`."""
    table = trials_table(study)
    best = winner(finalists)
    recommended = next((f for f in finalists if f.recommended), None)
    return (
        study.config.variant.name,
        str(len(table)),
        str(int((table["state"] == "pruned").sum()) if len(table) else 0),
        f"{study.seconds():.0f}",
        f"{sum(f.seconds for f in finalists):.0f}",
        _number(table.loc[table["state"] == "complete", "value"].max() if len(table) else None),
        _number(best.score if best else None),
        _number(recommended.score if recommended else None),
        _number(sensitivity(by_learning_rate(table))),
        "-" if best is None else RECOMMENDED if best.recommended else describe_point(best.point),
    )


def notes(study: Study, finalists: Sequence[Finalist]) -> list[str]:
    """Return what a variant's row does not show: what diverged, and optima at the edge of the space."""
    name, counted, best = study.config.variant.name, study.counted(), winner(finalists)
    lines = []
    if n_diverged := sum(map(diverged, counted)):
        lines.append(f"{name}: {n_diverged} of {len(counted)} trials diverged and count with F1 0")
    lines += [
        f"{name}: {f.origin} diverged with {f.diverged} of {len(FRESH_SEEDS)} fresh seeds"
        for f in finalists
        if f.diverged
    ]
    if best is not None and not best.recommended:
        edges = study.config.space.edges(best.point)
        lines += [
            f"{name}: {option} is undecided, the best point is on the {end} edge of the space"
            for option, end in edges.items()
        ]
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _value(trial: FrozenTrial) -> float:
    if diverged(trial):
        return WORST_F1
    if trial.values:
        return float(trial.values[0])
    reported = trial.intermediate_values
    return float(reported[max(reported)]) if reported else float("nan")


def _save_plots(study: Study, folder: Path) -> None:
    """Save plots of the study's history and, given enough trials, of parameter importances."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    complete = converged(study.trials())
    target = None if study.config.objective.cost is None else lambda trial: trial.values[0]
    plots: dict[str, Callable[..., Any]] = {"history.png": plot_optimization_history} if complete else {}
    varied = [n for n in study.config.space.dimensions if len({str(t.params.get(n)) for t in complete}) > 1]
    if len(complete) >= 4 and varied:
        plots["importance.png"] = plot_param_importances
    for name, draw in plots.items():
        with mpl.rc_context():  # Optuna changes the style and does not restore it
            draw(study.optuna, target=target, target_name="validation F1")
            plt.tight_layout()
            plt.savefig(folder / name, dpi=120)
            plt.close("all")
