"""What a run is called, and what a person wants to see at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whichlora.resolve import Plan


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished run: its id in MLflow and its metrics by name."""

    run_id: str
    metrics: dict[str, float]


def run_name(plan: Plan) -> str:
    """Return a name that tells runs apart in the UI."""
    spec = plan.spec
    more = f" {spec.composition}" if spec.composition != "substitution" else ""
    return f"{spec.variant}-{spec.arm} {spec.task} en+{spec.language} {spec.tl_ratio:g}{more} seed {spec.seed}"


def summary(plan: Plan, result: Result) -> str:
    """Return what a person wants to see at the end of a run."""
    import mlflow

    spec, m = plan.spec, result.metrics
    note = " (synthetic task)" if plan.task.synthetic else ""
    lines = [f"{run_name(plan)}{note}"]
    for role, language in (("en", "en"), ("tl", spec.language)):
        f1, size = m[f"test/{role}/f1"], len(plan.mixture.test[role])
        line = f"  {language}: F1 {f1:.3f} +- {1.96 * (f1 * (1 - f1) / size) ** 0.5:.3f} on {size} items"
        floors = ", ".join(f"{k.rpartition('/')[2]} {v:.3f}" for k, v in m.items() if k.startswith(f"floor/{role}/"))
        lines.append(f"{line}; base model {m[f'base/{role}/f1']:.3f}" + (f"; floors: {floors}" if floors else ""))
    if "train/seconds" in m:
        lines.append(
            f"  {m['adapter/trainable_parameters']:,.0f} trainable parameters "
            f"({m['adapter/trainable_percent']:.3f} %), trained in {m['train/seconds']:.0f} s, "
            f"host memory {m['host/memory_max_mb']:,.0f} MiB"
        )
    lines.append(f"  MLflow run {result.run_id} at {mlflow.get_tracking_uri()}; look at it with `make ui`")
    return "\n".join(lines)
