"""Formats the result of a finished run for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mlflow

from whichlora.config.plan import Plan, TestSet
from whichlora.data.language_names import language_name
from whichlora.data.logged_scores import best_floor, controls_of, interval_of, scores_by_language
from whichlora.data.metric_names import WORDS_RETRIEVED, metric_name, scale_of
from whichlora.data.tasks import PairTask
from whichlora.evaluation.intervals import wilson
from whichlora.masking import masked
from whichlora.text_tables import SHARES, table
from whichlora.tracking.views import ui_command


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its id in MLflow and its metrics by name."""

    run_id: str
    metrics: dict[str, float]


_HEAD = ("", "points", "95 % CI", "base", "gain", "best floor", "items")


def _rows(test: TestSet, m: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return the headline metric with its interval over items, the base model's, the gain in points and the best
    shallow baseline; of choices also rows of their controls, and of several target languages a row for each.
    """
    key, best = test.task.headline, best_floor(m, test.name)
    scale = scale_of(key)
    floor = "-" if best is None else f"{scale.text(best[1])} {metric_name(best[0])}"
    title = f"{test.title}: {metric_name(key)}{', a share' if scale is SHARES else ''}"
    rows: list[tuple[str, ...]] = [(title, *_cells(test, m, key), floor, f"{len(test.items):,}")]
    rows += [(f"  {metric_name(name)}", *_cells(test, m, name), "", "") for name in controls_of(m, test.name)]
    each = scores_by_language(m, f"test/{test.name}", key, test.task.languages)
    rows += [(f"  {language_name(code)}", scale.text(own), *[""] * 5) for code, own in each.items()]
    return rows


def _cells(test: TestSet, m: Mapping[str, float], key: str) -> tuple[str, ...]:
    """Return a metric of a test set, its interval, the base model's, and the gain."""
    score, base = m[f"test/{test.name}/{key}"], m[f"base/{test.name}/{key}"]
    scale = scale_of(key)
    return scale.text(score), _interval_text(test, m, key), scale.text(base), scale.gain(score - base)


def _interval_text(test: TestSet, m: Mapping[str, float], key: str) -> str:
    """Return the interval of a metric; for runs of earlier versions, which logged none, Wilson's."""
    score = f"test/{test.name}/{key}"
    return scale_of(key).interval(*(interval_of(m, score) or wilson(m[score], len(test.items))))


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
            parts.append(f"P@1 {SHARES.text(m[f'test/{name}/{WORDS_RETRIEVED}'])} {name} pairs")
        else:
            headline = test.task.headline
            score = scale_of(headline).text(m[f"test/{name}/{headline}"])
            parts.append(f"{metric_name(headline)} {score} {test.title}")
    return ", ".join(parts)


def _cost_lines(m: Mapping[str, float]) -> list[str]:
    """Return a line on what the adapter costs, and one on what it forgets; none for what was not measured."""
    lines = []
    costs = [f"{m['adapter/file_bytes'] / 1e6:,.1f} MB of files"] if "adapter/file_bytes" in m else []
    costs += [f"training {m['train/price']:,.4f} at the device's price"] if "train/price" in m else []
    if "inference/token_ms" in m:
        merged = m.get("inference/merged/token_ms")
        also = "" if merged is None else f" ({merged:,.1f} ms merged)"
        costs.append(f"inference {m['inference/token_ms']:,.1f} ms a token{also}")
    lines += [f"  {', '.join(costs)}"] if costs else []
    rises = [name.removesuffix("/ce_rise") for name in m if name.endswith("/ce_rise")]
    texts = [
        f"{language_name(name.partition('/')[2])} {m[f'{name}/ce_rise']:+.3f} to {m[f'{name}/ce']:.3f}"
        for name in rises
    ]
    return [
        *lines,
        *([f"  forgetting, cross-entropy of general text: {', '.join(texts)} nats a token"] if texts else []),
    ]


def summary(plan: Plan, result: Result, *, width: int | None = None) -> str:
    """Return the text printed at the end of a run, with a table of at most `width` cells."""
    m = result.metrics
    note = " (synthetic task)" if plan.task.synthetic else ""
    lines = [f"{plan.name}{note}"]
    rows = [row for test in plan.tests.values() if not isinstance(test.task, PairTask) for row in _rows(test, m)]
    if rows:
        lines.append(table([_HEAD, *rows], width=width, optional=("items", "best floor", "base")))
    for test in plan.tests.values():
        lines += _pair_lines(test, m) if isinstance(test.task, PairTask) else []
    if "train/seconds" in m:
        memory = f", host memory {m['host/memory_max_mb']:,.0f} MiB" if "host/memory_max_mb" in m else ""
        lines.append(
            f"  {m['adapter/trainable_parameters']:,.0f} trainable parameters "
            f"({m['adapter/trainable_percent']:.3f} %), trained in {m['train/seconds']:.0f} s{memory}"
        )
    lines += _cost_lines(m)
    ui = ui_command()
    opened = f"; open it with `{ui}`" if ui else ""
    lines.append(f"  MLflow run {result.run_id} at {masked(mlflow.get_tracking_uri())}{opened}")
    return "\n".join(lines)
