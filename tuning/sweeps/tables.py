"""The tables of a sweep in Markdown: scores by rate, each training, effects of changes, and the best arms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

from mlflow.entities import Run

from tuning.sweeps.best_arms import arms, rate_text
from tuning.sweeps.progress import Progress, Survey, scores
from tuning.sweeps.ranking import Best, ranking, recipes
from tuning.sweeps.stages import DIVERGED, Point
from whichlora.config.plan import Plan
from whichlora.data.mixture import texts_digest
from whichlora.text_tables import POINTS

_ONE_ANSWER = 0.95
"""Share of the most frequent answer from which a model is said to give one answer only."""


def tables(progress: Progress, survey: Survey) -> str:
    """Return the tables of the finished trainings."""
    parts = [
        _scores(progress, survey),
        _trainings(progress, survey),
        _changes(progress, survey),
        _ranking(progress, survey),
        arms(progress.sweep.name, progress.methods, survey.states, survey.results),
    ]
    return "\n\n".join(filter(None, parts))


def _rows(survey: Survey) -> Iterator[tuple[str, float, str]]:
    """Yield method, rate and change of the trainings with a result: rates in ascending order, then changes."""
    for method in survey.states:
        found = {(point.change != "", point.rate, point.change) for point in survey.results if point.method == method}
        order = {change: n for n, change in enumerate(point.change for point in survey.states[method].points)}
        for _, rate, change in sorted(found, key=lambda row: (row[0], row[1], order.get(row[2], 0))):
            yield method, rate, change


def _scores(progress: Progress, survey: Survey) -> str:
    """Return the table of scores: a row for each rate and change, a column for each seed."""
    seeds = list(dict.fromkeys(seed for method in progress.methods.values() for seed in method.seeds))
    changed = any(point.change for point in survey.results)
    languages = next((_languages(progress.plan(point)) for point in survey.results), "")
    head = [
        "variant",
        "rate",
        *(["changed"] * changed),
        *(f"seed {seed}: {languages}" for seed in seeds),
        "mean, points",
    ]
    rows = []
    for method, rate, change in _rows(survey):
        points = [Point(method, rate, seed, change) for seed in seeds]
        found = [point for point in points if point in survey.results]
        cells = [_score_text(progress, survey, point) if point in survey.results else "" for point in points]
        average = _mean(progress, survey, found)
        last = "-" if average in (None, DIVERGED) else POINTS.text(average)
        rows.append([method, rate_text(rate), *([change] * changed), *cells, last])
    return _markdown(head, rows)


def _trainings(progress: Progress, survey: Survey) -> str:
    """Return the table of what tells a collapsed training: its answers, its last loss, and the shallow baselines."""
    head = [
        "variant",
        "rate",
        "changed",
        "seed",
        "most frequent answer",
        "final loss",
        "best shallow baseline, points",
        "note",
    ]
    rows, floors = [], dict[str, float | None]()
    for method, rate, change in _rows(survey):
        for seed in progress.methods[method].seeds:
            point = Point(method, rate, seed, change)
            if point in survey.results:
                signs = _signs(progress.plan(point), survey.results[point], floors)
                rows.append([method, rate_text(rate), change, str(seed), *signs])
    return _markdown(head, rows)


def _signs(plan: Plan, run: Run, known: dict[str, float | None]) -> list[str]:
    """Return the cells of a training; `known` are shallow baselines by the items that they were computed on."""
    if run.info.status == "FAILED":
        return ["", "", "", f"diverged: {run.data.tags.get('whichlora.error', '').partition(': ')[2]}"]
    values = scores(run, plan)
    shares = {role: run.data.metrics.get(f"validation/{role}/most_frequent_share") for role in values}
    floors = {role: _floor(plan, role, known) for role in values}
    codes = _codes(plan)
    one = [codes[role] for role, share in shares.items() if share is not None and share >= _ONE_ANSWER]
    low = [codes[role] for role, value in values.items() if (floor := floors[role]) is not None and value <= floor]
    notes = ["one answer: " + ", ".join(one)] * bool(one) + ["not above the baseline: " + ", ".join(low)] * bool(low)
    loss = run.data.metrics.get("train/final_loss")
    return [
        " / ".join("-" if share is None else f"{share:.2f}" for share in shares.values()),
        "-" if loss is None else f"{loss:.3f}",
        " / ".join("-" if floor is None else POINTS.text(floor) for floor in floors.values()),
        "; ".join(notes),
    ]


def _changes(progress: Progress, survey: Survey) -> str:
    """Return the table of what each change does to the methods, compared with their best rate."""
    rows = []
    for change in progress.sweep.rules.changes:
        pairs = []
        for method, state in survey.states.items():
            if state.best is not None:
                seeds = progress.methods[method].seeds
                points = [[Point(method, state.best, seed, name) for seed in seeds] for name in (change, "")]
                pairs.append([_mean(progress, survey, found) for found in points])
        if cells := effect([(changed, best) for changed, best in pairs if changed is not None and best is not None]):
            rows.append([change, *cells])
    return _markdown(["change", "points, mean of the methods", "better for"], rows) if rows else ""


def _ranking(progress: Progress, survey: Survey) -> str:
    """Return the table of how the methods rank under each recipe; empty if there is only one."""
    best: dict[str, Best] = {}
    for name, state in survey.states.items():
        if state.best is not None:
            score = _mean(progress, survey, [Point(name, state.best, seed) for seed in progress.methods[name].seeds])
            best[name] = (DIVERGED if score is None else score, state.best)
        elif not state.missing:
            best[name] = (DIVERGED, None)
    head, *rows = ranking(recipes(progress.methods), best) or [[]]
    return _markdown(head, rows) if rows else ""


def effect(pairs: Sequence[tuple[float, float]]) -> list[str]:
    """Return the cells of a change: its mean effect in points, and for how many methods it is better.

    A method that diverges under the change counts, and leaves no mean.

    Args:
        pairs: mean scores with the change and without it, by method; `DIVERGED` for a method that diverged.
    """
    if not pairs:
        return []
    diverged = sum(changed == DIVERGED for changed, _ in pairs)
    points = "-" if diverged else POINTS.gain(mean(changed - best for changed, best in pairs))
    better = sum(changed > best for changed, best in pairs)
    return [points, f"{better} of {len(pairs)}" + f", {diverged} diverged" * bool(diverged)]


def _mean(progress: Progress, survey: Survey, points: Sequence[Point]) -> float | None:
    """Return the mean score of points; `DIVERGED` if one diverged, None if one has no result."""
    runs = [survey.results.get(point) for point in points]
    if not all(runs):
        return None
    if any(run is not None and run.info.status == "FAILED" for run in runs):
        return DIVERGED
    return mean(value for point in points for value in scores(survey.results[point], progress.plan(point)).values())


def _score_text(progress: Progress, survey: Survey, point: Point) -> str:
    run = survey.results[point]
    if run.info.status == "FAILED":
        return "diverged"
    return " / ".join(POINTS.text(value) for value in scores(run, progress.plan(point)).values())


def _codes(plan: Plan) -> dict[str, str]:
    """Return the languages by role, of roles with validation items."""
    codes = {"en": plan.task.source or "", "tl": plan.spec.language}
    return {role: codes.get(role, role) for role, items in plan.mixture.validation.items() if items}


def _languages(plan: Plan) -> str:
    return " / ".join(_codes(plan).values())


def _floor(plan: Plan, role: str, known: dict[str, float | None]) -> float | None:
    """Return the score of the best shallow baseline on the validation items of a role; None if the task has none."""
    items = plan.mixture.validation[role]
    key = texts_digest(plan.task, [*plan.mixture.train, *items])
    if key not in known:
        known[key] = max(plan.task.shallow_baselines(plan.mixture.train, items).values(), default=None)
    return known[key]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in (head, *rows)]
    return "\n".join([f"| {lines[0]} |", "|" + "---|" * len(head), *(f"| {line} |" for line in lines[1:])])
