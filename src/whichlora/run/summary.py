"""Formats the result of a finished run for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow

from whichlora.config.plan import Plan, TestSet
from whichlora.data.language_names import language_name
from whichlora.data.metric_names import metric_name
from whichlora.data.tasks import PairTask
from whichlora.evaluation.intervals import wilson
from whichlora.masking import masked


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its id in MLflow and its metrics by name."""

    run_id: str
    metrics: dict[str, float]


def _prompt_line(test: TestSet, m: Mapping[str, float]) -> str:
    """Return a line with the headline metric, its 95% interval over items, that of the base model, and the shallow
    baselines; of several target languages also each language's own.
    """
    key, size = test.task.headline, len(test.items)
    score = f"{metric_name(key)} {m[f'test/{test.name}/{key}']:.3f} (95% CI {_interval_text(test, m, key)})"
    line = f"  {test.title}: {score} on {size} items"
    floors = ", ".join(f"{k.rpartition('/')[2]} {v:.3f}" for k, v in m.items() if k.startswith(f"floor/{test.name}/"))
    line += f"; base model {m[f'base/{test.name}/{key}']:.3f}" + (f"; shallow baselines: {floors}" if floors else "")
    each = {code: m.get(f"test/{test.name}/{code}/{key}") for code in test.task.languages}
    parts = [f"{language_name(code)} {score:.3f}" for code, score in each.items() if score is not None]
    return f"{line}; {', '.join(parts)}" if parts else line


def _interval_text(test: TestSet, m: Mapping[str, float], key: str) -> str:
    """Return the interval of a metric; for runs of earlier versions, which logged none, Wilson's."""
    low, high = (m.get(f"test/{test.name}/{key}_{end}") for end in ("low", "high"))
    if low is None or high is None:
        low, high = wilson(m[f"test/{test.name}/{key}"], len(test.items))
    return f"{low:.3f} to {high:.3f}"


def _pair_lines(test: TestSet, m: Mapping[str, float]) -> list[str]:
    """Return one line per site: cosines of translations and of random pairs, and P@1, before and after training."""
    lines = []
    for site in ("pooled", "output"):
        parts = []
        for name, measure in (
            ("cosine", "cosine/translation/raw"),
            ("of random pairs", "cosine/random/raw"),
            ("P@1", "p1/to/centred"),
        ):
            before, after = (m[f"{when}/{test.name}/{site}/{measure}"] for when in ("base", "test"))
            parts.append(f"{name} {before:.3f} -> {after:.3f}")
        p = m.get(f"paired/{test.name}/{site}/cosine/gap/centred/p")
        parts.append(f"p of the gap's rise {p:.1e}" if p is not None else f"chance {m[f'floor/{test.name}/p1']:.3f}")
        lines.append(f"  {test.name} pairs, {site}: {', '.join(parts)}")
    return lines


def short_scores(plan: Plan, m: Mapping[str, float]) -> str:
    """Return a run's scores on its test sets as one line."""
    parts = []
    for name, test in plan.tests.items():
        if isinstance(test.task, PairTask):
            parts.append(f"P@1 {m[f'test/{name}/pooled/p1/to/centred']:.3f} {name} pairs")
        else:
            headline = test.task.headline
            parts.append(f"{metric_name(headline)} {m[f'test/{name}/{headline}']:.3f} {test.title}")
    return ", ".join(parts)


def summary(plan: Plan, result: Result) -> str:
    """Return the text printed at the end of a run."""
    m = result.metrics
    note = " (synthetic task)" if plan.task.synthetic else ""
    lines = [f"{plan.name}{note}"]
    for test in plan.tests.values():
        lines += _pair_lines(test, m) if isinstance(test.task, PairTask) else [_prompt_line(test, m)]
    if "train/seconds" in m:
        memory = f", host memory {m['host/memory_max_mb']:,.0f} MiB" if "host/memory_max_mb" in m else ""
        lines.append(
            f"  {m['adapter/trainable_parameters']:,.0f} trainable parameters "
            f"({m['adapter/trainable_percent']:.3f} %), trained in {m['train/seconds']:.0f} s{memory}"
        )
    lines.append(f"  MLflow run {result.run_id} at {masked(mlflow.get_tracking_uri())}; open it with `make ui`")
    return "\n".join(lines)
