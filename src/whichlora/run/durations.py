"""Estimates how long runs take from finished runs with the same model and task on the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from whichlora.config.cli import format_duration
from whichlora.config.plan import Plan
from whichlora.data.mixture import trained_count
from whichlora.tracking.lookup import all_experiments
from whichlora.tracking.runs import place

_NEWEST = 50
"""Number of finished runs that an estimate uses at most."""


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long finished runs took.

    Attributes:
        rates: seconds of training per example, by variant.
        others: seconds of everything but the training: loading, scoring, logging.
        count: number of runs.
    """

    rates: Mapping[str, Sequence[float]]
    others: Sequence[float]
    count: int

    @classmethod
    def of(cls, runs: Iterable[Run]) -> Durations:
        """Return the durations of finished runs."""
        rates: dict[str, list[float]] = {}
        others: list[float] = []
        count = 0
        for run in runs:
            count += 1
            metrics, tags = run.data.metrics, run.data.tags
            trained, reused = metrics.get("train/seconds", 0.0), "whichlora.adapter_of" in tags
            examples = _examples(run.data.params)
            if trained and examples and not reused:
                rates.setdefault(run.data.params["variant"], []).append(trained / examples)
            # The duration of a packed or resumed run includes other runs or a pause.
            if metrics.get("train/packed", 1) <= 1 and "whichlora.resumed" not in tags:
                seconds = (run.info.end_time - run.info.start_time) / 1000 - (0.0 if reused else trained)
                others.append(max(0.0, seconds))  # negative if the clock was set back
        return cls(rates=rates, others=others, count=count)

    def training(self, plan: Plan) -> float | None:
        """Estimate the seconds of a plan's training; None if no run has trained."""
        every = [rate for rates in self.rates.values() for rate in rates]
        if not every:
            return None
        return median(self.rates.get(plan.spec.variant) or every) * trained_examples(plan)

    def total(self, plans: Iterable[Plan], trained: Iterable[str] = ()) -> float | None:
        """Estimate the device-seconds of runs; None if no run is known.

        Args:
            trained: training fingerprints of adapters that exist; those of several plans are trained once.
        """
        if not self.rates and not self.others:
            return None
        exist, seconds = set(trained), 0.0
        for plan in plans:
            seconds += median(self.others) if self.others else 0.0
            if plan.spec.training_fingerprint not in exist:
                exist.add(plan.spec.training_fingerprint)
                seconds += self.training(plan) or 0.0
        return seconds


def known_durations(client: MlflowClient, plan: Plan) -> Durations:
    """Return the durations of the newest finished runs of any experiment that are like a plan.

    They have the same base model, task and precision, and were done on this machine. What is not training counts only
    in runs that scored as many items.
    """
    spec = plan.spec
    same = {name: getattr(spec, name) for name in ("model_digest", "task", "precision", "quantization", "scoring")}
    conditions = [f"params.{name} = '{value}'" for name, value in same.items() if "'" not in str(value)]
    conditions += ["attributes.status = 'FINISHED'", "tags.`whichlora.kind` = 'run'"]
    conditions += [f"tags.`whichlora.place` = '{place()}'"]
    experiments = list(all_experiments(client).values())
    newest = ["attributes.start_time DESC"]
    runs = (
        list(client.search_runs(experiments, " and ".join(conditions), max_results=_NEWEST, order_by=newest))
        if experiments
        else []
    )
    found = Durations.of(runs)
    sizes = {"validation_size": str(spec.validation_size), "test_size": str(spec.test_size)}
    alike = Durations.of(run for run in runs if sizes.items() <= run.data.params.items())
    return Durations(rates=found.rates, others=alike.others, count=found.count)


def estimate_text(durations: Durations, plan: Plan) -> str:
    """Return how long a run takes as a sentence; "" if that is not known."""
    training = durations.training(plan) if plan.variant.trains else 0.0
    basis = "a finished run" if durations.count == 1 else f"{durations.count} finished runs"
    basis = f"estimated from {basis} with this model and task on this machine"
    if durations.others and training is not None:
        return f"This takes about {format_duration(training + median(durations.others))}, {basis}."
    if training:
        items = sum(len(test.items) for test in plan.tests.values())
        return f"Training takes about {format_duration(training)}, {basis}; then {items:,} test items are scored."
    return ""


def trained_examples(plan: Plan) -> int:
    """Return the number of examples that a plan trains on, counted once per epoch."""
    spec = plan.spec
    return trained_count(spec.tl_ratio, spec.train_size, spec.composition) * (spec.epochs or 0)


def _examples(params: Mapping[str, str]) -> int:
    """Return the same of a run; 0 if its params do not tell."""
    try:
        size = trained_count(float(params["tl_ratio"]), int(params["train_size"]), params["composition"])
        return size * int(params["epochs"])
    except (KeyError, ValueError):
        return 0
