"""The state of a sweep on the tracking server, and the time that the rest of it takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from statistics import mean, median

from mlflow.entities import Run

from tuning.divergence import run_diverged
from tuning.sweeps.methods import Method
from tuning.sweeps.stages import DIVERGED, Point, State, state
from tuning.sweeps.sweep_file import Sweep
from whichlora.config.cli import format_duration
from whichlora.config.plan import Plan
from whichlora.config.spec import canonical_digest
from whichlora.errors import OptionError
from whichlora.run.durations import trained_examples
from whichlora.tracking.client import find_experiment, search_all
from whichlora.tracking.runs import Tracker


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The state of each method, and the finished and diverged trials of the points that are known to be needed."""

    states: Mapping[str, State]
    results: Mapping[Point, Run]

    @property
    def missing(self) -> list[Point]:
        """The points that are known to be needed and have no result."""
        return [point for found in self.states.values() for point in found.missing]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Reads how far the methods of some variants are in a sweep; without a tracker nothing has run."""

    sweep: Sweep
    variants: Collection[str]
    tracker: Tracker | None
    _plans: dict[Point, Plan] = field(default_factory=dict)

    @property
    def methods(self) -> dict[str, Method]:
        """The methods of the variants."""
        return {name: found for name, found in self.sweep.methods.items() if found.options.variant in self.variants}

    @property
    def identity(self) -> str:
        """Digest of the trainings of the whole file, which is the same on all machines."""
        first = {name: self.first(name).spec.fingerprint for name in self.sweep.methods}
        return canonical_digest([first, vars(self.sweep.rules)])

    def plan(self, point: Point) -> Plan:
        """Return the plan of a point.

        Raises:
            OptionError: an option is not allowed.
        """
        if point not in self._plans:
            self._plans[point] = self.sweep.methods[point.method].plan(point)
        return self._plans[point]

    def first(self, method: str, change: str = "") -> Plan:
        """Return the plan of a method's first rate and seed, with a change of another option."""
        found = self.sweep.methods[method]
        return self.plan(Point(method, found.rates[0], found.seeds[0], change))

    def check(self) -> None:
        """Resolve a training of each method and change, so that bad options are found before anything is trained.

        Raises:
            OptionError: an option is not allowed, a change changes nothing, or the methods' trainings differ in size.
        """
        plain = {name: self.first(name).spec for name in self.sweep.methods}
        firsts: dict[str, str] = {}
        for name, method in self.sweep.methods.items():
            other = firsts.setdefault(method.recipe, name)
            for option in ("train_size", "epochs", "batch_size", "warmup"):
                value, usual = (getattr(plain[found], option) for found in (name, other))
                if value != usual:
                    problem = f"must be the same for all methods of a sweep: {name} has {value} and {other} {usual}"
                    raise OptionError(option, value, problem)
        for name in self.methods:
            for change in self.sweep.rules.changes:
                if self.first(name, change).spec.fingerprint == plain[name].fingerprint:
                    raise OptionError("changes", change, f"changes nothing for {name}")

    def survey(self) -> Survey:
        """Read the results from the tracking server."""
        runs, results = self._runs(), dict[Point, Run]()

        def score(point: Point) -> float | None:
            run = runs.get(self.plan(point).spec.fingerprint)
            if run is None:
                return None
            results[point] = run
            return DIVERGED if run.info.status == "FAILED" else mean(scores(run, self.plan(point)).values())

        rules = self.sweep.rules
        states = {name: state(name, method.rates, method.seeds, rules, score) for name, method in self.methods.items()}
        return Survey(states=states, results=results)

    def _runs(self) -> dict[str, Run]:
        """Return the finished trials by fingerprint, and those that diverged."""
        found = find_experiment(self.tracker.client, self.tracker.experiment) if self.tracker else None
        if self.tracker is None or found is None:
            return {}
        search = self.tracker.client.search_runs
        runs = list(search_all(search, [found.experiment_id], "tags.`whichlora.kind` = 'trial'"))
        ended = [run for run in runs if run.info.status == "FAILED" and run_diverged(run)]
        ended += [run for run in runs if run.info.status == "FINISHED"]
        return {run.data.tags.get("whichlora.fingerprint", ""): run for run in ended}

    def text(self, survey: Survey, *, workers: int) -> str:
        """Return a printable summary: the number of trainings and the time that they take."""
        rules, done = self.sweep.rules, len(survey.results)
        needed, added = 0, list[int]()
        for name, method in self.methods.items():
            found, seeds = survey.states[name], len(method.seeds)
            if not found.missing:  # without a best rate there are no changes to try
                needed += len(found.points)
                continue
            needed += max(rules.least(len(method.rates), seeds), len(found.points))
            added += [rules.extend * seeds] if found.best is None else []
        more = f"; at most {sum(added)} more ({max(added)} for a method)" if any(added) else ""
        more += " where the best rate is the lowest or the highest" if more else ""
        lines = [
            f"{self.sweep.name}: {' '.join(self.sweep.about.split())}".rstrip(": "),
            f"{len(self.methods)} methods, {needed} trainings: {done} done, {needed - done} missing{more}.",
        ]
        if needed > done:
            seconds = self._seconds_left(survey)
            parallel = f" with {workers} workers" if workers > 1 else ""
            left = "not known until a training has finished" if seconds is None else format_duration(seconds / workers)
            lines.append(f"Time left: {left}{parallel if seconds is not None else ''}.")
        return "\n".join(lines)

    def _seconds_left(self, survey: Survey) -> float | None:
        """Estimate the device-seconds of what is missing by the number of examples; None if no speed is known."""
        examples, rules = 0, self.sweep.rules
        for name, method in self.methods.items():
            if not survey.states[name].missing:
                continue
            done = [point.change for point in survey.states[name].points if point in survey.results]
            rates = rules.least(len(method.rates), len(method.seeds)) - len(rules.changes) * len(method.seeds)
            examples += max(0, rates - done.count("")) * trained_examples(self.first(name))
            for change in rules.changes:
                examples += (len(method.seeds) - done.count(change)) * trained_examples(self.first(name, change))
        speeds = [
            (run.info.end_time - run.info.start_time) / 1000 / trained_examples(self.plan(point))
            for point, run in survey.results.items()
            if run.info.status == "FINISHED" and "whichlora.resumed" not in run.data.tags
        ]
        if not speeds and self.sweep.minutes is not None:
            speeds = [60 * self.sweep.minutes / trained_examples(self.first(next(iter(self.methods))))]
        return median(speeds) * examples if speeds else None


def scores(run: Run, plan: Plan) -> dict[str, float]:
    """Return the validation scores of a finished trial by role, `en` and `tl`."""
    names = {role: f"validation/{role}/{plan.task.headline}" for role in plan.mixture.validation}
    return {role: run.data.metrics[name] for role, name in names.items() if name in run.data.metrics}
