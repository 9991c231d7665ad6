"""Turns the scores on test sets into a run's metrics: with gains, shallow baselines, intervals and single languages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from whichlora.config.plan import Plan, TestSet
from whichlora.data.tasks import Item, PairTask, Task
from whichlora.data.tasks.base import RetrievalTask
from whichlora.evaluation.intervals import interval, wilson
from whichlora.evaluation.scores import CONTROL_PREFIX
from whichlora.run.reuse import TestScores


def metrics_of_test_set(plan: Plan, name: str, scores: TestScores, base: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a test set: of the trained and the base model, gain, baselines, intervals, languages.

    Args:
        base: the base model's scores, without prefix.
    """
    test = plan.tests[name]
    metrics = _test_metrics(plan, name, scores.metrics, base)
    return metrics | _interval_metrics(test, scores) | _metrics_by_language(test, scores)


def _test_metrics(plan: Plan, name: str, scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of a test set: of the trained model, base model and shallow baselines, and the gain."""
    test = plan.tests[name]
    metrics = {f"test/{name}/{k}": v for k, v in scores.items()}
    metrics |= {f"base/{name}/{k}": v for k, v in base.items()}
    metrics[f"gain/{name}"] = scores[test.task.headline] - base[test.task.headline]
    if test.group != "retention":  # whose baselines would need training items of the task
        floors = test.task.shallow_baselines(plan.mixture.train, test.items)
        metrics |= {f"floor/{name}/{k}": v for k, v in floors.items()}
    return metrics


def _interval_metrics(test: TestSet, scores: TestScores) -> dict[str, float]:
    """Return the 95 % intervals of F1, also of controls, and of the headline metric: `test/en/f1_low`, `..._high`."""
    if isinstance(test.task, PairTask):
        return {}
    metrics: dict[str, float] = {}
    for beginning, column in _answer_columns(scores).items():
        predicted, gold = _answers(test.task, test.items, scores.predictions[column])
        for key in dict.fromkeys(("f1", test.task.headline)):
            if f"{beginning}{key}" not in scores.metrics:
                continue
            if isinstance(test.task, RetrievalTask):
                low, high = wilson(scores.metrics[key], len(gold))
            else:
                low, high = interval(test.task, predicted, gold, key)
            name = f"test/{test.name}/{beginning}{key}"
            metrics |= {f"{name}_low": low, f"{name}_high": high}
    return metrics


def _metrics_by_language(test: TestSet, scores: TestScores) -> dict[str, float]:
    """Return the metrics of each language, such as `test/tl/tr/f1`, of a test set in several target languages."""
    codes = sorted({item.language for item in test.items})
    if len(codes) == 1 or isinstance(test.task, PairTask):
        return {}
    metrics: dict[str, float] = {}
    for (beginning, column), code in product(_answer_columns(scores).items(), codes):
        answers = zip(test.items, scores.predictions[column], strict=True)
        own = [(item, answer) for item, answer in answers if item.language == code]
        values = test.task.metrics(*_answers(test.task, [item for item, _ in own], [answer for _, answer in own]))
        prefix = f"test/{test.name}/{code}/{beginning}"
        metrics |= {f"{prefix}{key}": value for key, value in values.items() if key == "f1" or not beginning}
    return metrics


def _answer_columns(scores: TestScores) -> dict[str, str]:
    """Return the columns with predictions, by the beginning of their metrics: empty, or such as `control_`."""
    columns = map(str, scores.predictions)
    names = [column.removeprefix(CONTROL_PREFIX) for column in columns if column.startswith(CONTROL_PREFIX)]
    return {"": "predicted", **{f"{name}_": f"{CONTROL_PREFIX}{name}" for name in names}}


def _answers(
    task: Task, items: Sequence[Item], predicted: Iterable[object]
) -> tuple[list[str | None], list[tuple[str, ...]]]:
    """Return the predicted and the accepted answers of items; None for what is missing in a table of predictions."""
    return [answer if isinstance(answer, str) else None for answer in predicted], [task.gold(item) for item in items]
