"""Logs metrics, tables and plots of each study to MLflow, and compares results and costs of the variants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial, TrialState

from tuning.divergence import WORST_F1, converged, diverged
from tuning.finalists import RECOMMENDED, Finalist
from tuning.halving.brackets import in_rung as trials_in_rung
from tuning.halving.brackets import n_points, place_of
from tuning.halving.promotion import LEARNED
from tuning.optuna_study import Study
from tuning.space import SEARCHED, describe_point
from tuning.study_config import FRESH_SEEDS, TUNING_SEED, StudyConfig
from tuning.study_run import finished
from whichlora.config.options import RUN_OPTIONS
from whichlora.csv_text import to_csv
from whichlora.text_tables import POINTS
from whichlora.tracking.runs import Tracker

_ARM_OPTIONS = (*SEARCHED, "layers", "quantization")
"""Options that an experiment's file sets per arm; the others apply to the whole experiment."""
_MAX_RATES = 6
"""Number of distinct learning rates above which they are grouped by thirds of a decade."""


def trials_table(study: Study) -> pd.DataFrame:
    """Return a row per counted trial with its point, value, seed and seconds; with rungs also its bracket and rung.

    The value of a pruned trial is its last report, that of a diverged one 0.
    """
    config = study.config
    rows = [
        {
            "trial": trial.number,
            "state": "diverged" if diverged(trial) else trial.state.name.lower(),
            **({} if place is None else {"bracket": place.bracket, "rung": place.rung}),
            **({} if place is None else {"items": config.rungs.items(config.train_size, place.rung)}),
            "value": _value(trial),
            "seed": trial.user_attrs.get("seed"),
            "seconds": trial.user_attrs.get("seconds"),
            "run_id": trial.user_attrs.get("run_id"),
            **trial.params,
        }
        for trial in sorted(study.counted(), key=lambda t: t.number)
        for place in [place_of(trial)]
    ]
    return pd.DataFrame(rows)


def in_rung(table: pd.DataFrame, rung: int) -> pd.DataFrame:
    """Return the rows of a rung; all in a study without rungs."""
    return table[table["rung"] == rung] if "rung" in table else table


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


def curve(table: pd.DataFrame, rung: int = 0) -> pd.DataFrame:
    """Return the best value after n trials of a rung, observed and expected, with the cumulative seconds of all."""
    compared = in_rung(table, rung)
    if compared.empty:
        return pd.DataFrame(columns=["trials", "best", "expected_best", "seconds"])
    return pd.DataFrame(
        {
            "trials": range(1, len(compared) + 1),
            "best": compared["value"].cummax(),
            "expected_best": expected_maximum(compared["value"].tolist()),
            "seconds": table["seconds"].cumsum().loc[compared.index],
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
    table, rungs = trials_table(study), study.config.rungs
    rates = by_learning_rate(in_rung(table, 0))
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
            **({"rungs": rungs.number} if rungs.halving else {}),
        }
    )
    metrics = {f"trials/{state}": float(n) for state, n in states.items()}
    metrics["trials/diverged"] = float(sum(map(diverged, study.counted())))
    metrics |= {
        f"trials/rung_{rung}": float(len(in_rung(table, rung))) for rung in range(rungs.number) if rungs.halving
    }
    metrics["tuning/points"] = float(n_points(study.counted()))
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
        for name, rows in (("trials", table), ("curve", curve(table, rungs.top)), ("learning_rates", rates)):
            (folder / f"{name}.csv").write_text(to_csv(rows), encoding="utf-8")
        if best is not None:
            (folder / "best.yaml").write_text(arm_yaml(study, best))
        _save_plots(study, folder)
        log.artifacts(folder, "study")
    log.describe(finished(study.about, summary([(study, finalists)]), arm_yaml(study, best) if best else None))
    tracker.client.set_terminated(study.run_id, "FINISHED" if len(table) else "FAILED")


def winner(finalists: Sequence[Finalist]) -> Finalist | None:
    """Return the finalist with the best mean over the fresh seeds; None if scores are missing or all diverged."""
    if not all(f.scored for f in finalists):
        return None
    return max((f for f in finalists if not f.diverged), key=lambda f: f.score, default=None)


def arm(config: StudyConfig, study: str, best: Finalist) -> dict[str, Any]:
    """Return the best point of a study as an arm of an experiment's YAML file; `study` is its name."""
    fixed = {
        n: v for n in _ARM_OPTIONS if (v := getattr(config.options, n)) is not None and str(v) != RUN_OPTIONS[n][0]
    }
    options: dict[str, Any] = {"variant": config.variant.name}
    if best.recommended:
        options |= {"arm": "recommended", **fixed}
    else:
        searched = {option: value for option, value in best.point.items() if option in SEARCHED}
        variant_options = {option: value for option, value in best.point.items() if option not in SEARCHED}
        options |= {"arm": "tuned", **fixed, **searched, **({"options": variant_options} if variant_options else {})}
    return options | {"source": f"study {study}"}


def arm_yaml(study: Study, best: Finalist) -> str:
    """Return the best point as an arm, in YAML."""
    return yaml.safe_dump([arm(study.config, study.name, best)], sort_keys=False, width=1000)


HEAD = (
    *("variant", "trials", "pruned", "seconds, trials", "seconds, fresh seeds", "best in the study, points"),
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
    table, rungs = trials_table(study), study.config.rungs
    compared = in_rung(table, rungs.top)
    best = winner(finalists)
    recommended = next((f for f in finalists if f.recommended), None)
    return (
        study.config.variant.name,
        "/".join(str(len(in_rung(table, rung))) for rung in range(rungs.number)),
        str(int((table["state"] == "pruned").sum()) if len(table) else 0),
        f"{study.seconds():.0f}",
        f"{sum(f.seconds for f in finalists):.0f}",
        _score(compared.loc[compared["state"] == "complete", "value"].max() if len(compared) else None),
        _score(best.score if best else None),
        _score(recommended.score if recommended else None),
        _score(sensitivity(by_learning_rate(in_rung(table, 0)))),
        "-" if best is None else RECOMMENDED if best.recommended else describe_point(best.point),
    )


def notes(study: Study, finalists: Sequence[Finalist]) -> list[str]:
    """Return what a variant's row does not show: what diverged, and optima at the edge of the space."""
    name, counted, best = study.config.variant.name, study.counted(), winner(finalists)
    lines = _rung_notes(study)
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


def _rung_notes(study: Study) -> list[str]:
    """Return what the rungs of a study have: items, trials, and whether any of these learned something."""
    name, rungs, lines = study.config.variant.name, study.config.rungs, []
    for rung in range(rungs.number) if rungs.halving else ():
        trials, items = trials_in_rung(study.counted(), rung), rungs.items(study.config.train_size, rung)
        learned = sum(bool(trial.user_attrs.get(LEARNED)) for trial in trials)
        lines.append(f"{name}: {len(trials)} trials on {items} items, {learned} of them above chance")
    return lines


def _score(value: float | None) -> str:
    """Return a score in points; a dash if there is none."""
    return "-" if value is None or not np.isfinite(value) else POINTS.text(value)


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
    from matplotlib.ticker import PercentFormatter
    from optuna.visualization.matplotlib import plot_optimization_history, plot_param_importances

    rungs = study.config.rungs
    on_all_items, in_lowest = (_alone(study, rung) for rung in (rungs.top, 0))
    complete = converged(in_lowest.trials)
    target = None if study.config.objective.cost is None else lambda trial: trial.values[0]
    plots: dict[str, tuple[Callable[..., Any], optuna.Study]] = {}
    if converged(on_all_items.trials):
        plots["history.png"] = plot_optimization_history, on_all_items
    varied = [n for n in study.config.space.dimensions if len({str(t.params.get(n)) for t in complete}) > 1]
    if len(complete) >= 4 and varied:
        plots["importance.png"] = plot_param_importances, in_lowest
    for name, (draw, drawn) in plots.items():
        with mpl.rc_context():  # Optuna changes the style and does not restore it
            axes = draw(drawn, target=target, target_name="validation F1, points")
            if name == "history.png":
                axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, symbol=""))
            plt.tight_layout()
            plt.savefig(folder / name, dpi=120)
            plt.close("all")


def _alone(study: Study, rung: int) -> optuna.Study:
    """Return a study with the trials of one rung only, in memory; the study itself if it has no rungs."""
    if not study.config.rungs.halving:
        return study.optuna
    alone = optuna.create_study(direction="maximize")
    alone.add_trials(trials_in_rung(study.counted(), rung))
    return alone
