"""What a run is called, and what a person wants to see at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from whichlora.config import retention
from whichlora.config.plan import run_name

if TYPE_CHECKING:
    from whichlora.config.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its id in MLflow and its metrics by name."""

    run_id: str
    metrics: dict[str, float]


def _named(plan: Plan, role: str) -> str:
    language = "en" if role.endswith("en") else plan.spec.language
    return f"{plan.scorer(role)[0].name}, not trained, {language}" if role.startswith(retention.ROLES) else language


def _answers(plan: Plan, m: Mapping[str, float], role: str) -> str:
    f1, size = m[f"test/{role}/f1"], len(plan.mixture.test[role])
    line = f"  {_named(plan, role)}: F1 {f1:.3f} +- {1.96 * (f1 * (1 - f1) / size) ** 0.5:.3f} on {size} items"
    floors = ", ".join(f"{k.rpartition('/')[2]} {v:.3f}" for k, v in m.items() if k.startswith(f"floor/{role}/"))
    return f"{line}; base model {m[f'base/{role}/f1']:.3f}" + (f"; floors: {floors}" if floors else "")


def _pairs(m: Mapping[str, float], role: str) -> list[str]:
    """Return a line a place: cosines of translations and of random pairs, and how many are found, before and after."""
    lines = []
    for place in ("pooled", "output"):
        told = []
        for name, measure in (
            ("cosine", "cosine/translation/raw"),
            ("of random pairs", "cosine/random/raw"),
            ("P@1", "p1/to/centred"),
        ):
            before, after = (m[f"{when}/{role}/{place}/{measure}"] for when in ("base", "test"))
            told.append(f"{name} {before:.3f} -> {after:.3f}")
        p = m.get(f"paired/{role}/{place}/cosine/gap/centred/p")
        told.append(f"p of the gap's rise {p:.1e}" if p is not None else f"chance {m[f'floor/{role}/p1']:.3f}")
        lines.append(f"  {role} pairs, {place}: {', '.join(told)}")
    return lines


def short_scores(plan: Plan, m: Mapping[str, float]) -> str:
    """Return what a run came to on each of its test sets, in one line."""
    told = []
    for role in plan.mixture.test:
        if plan.scorer(role)[0].kind == "pair":
            told.append(f"P@1 {m[f'test/{role}/pooled/p1/to/centred']:.3f} {role} pairs")
        else:
            told.append(f"F1 {m[f'test/{role}/f1']:.3f} {_named(plan, role)}")
    return ", ".join(told)


def summary(plan: Plan, result: Result) -> str:
    """Return what a person wants to see at the end of a run."""
    import mlflow

    m = result.metrics
    note = " (synthetic task)" if plan.task.synthetic else ""
    lines = [f"{run_name(plan)}{note}"]
    for role in plan.mixture.test:
        lines += _pairs(m, role) if plan.scorer(role)[0].kind == "pair" else [_answers(plan, m, role)]
    if "train/seconds" in m:
        lines.append(
            f"  {m['adapter/trainable_parameters']:,.0f} trainable parameters "
            f"({m['adapter/trainable_percent']:.3f} %), trained in {m['train/seconds']:.0f} s, "
            f"host memory {m['host/memory_max_mb']:,.0f} MiB"
        )
    lines.append(f"  MLflow run {result.run_id} at {mlflow.get_tracking_uri()}; look at it with `make ui`")
    return "\n".join(lines)
