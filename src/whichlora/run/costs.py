"""What a run's adapter costs: its files, its training at a price, and inference with it, merged and not.

Inference is measured after training on the run's own device, in the process of the run. Nothing else of the run works
meanwhile, but other runs and programs of the machine may: `inference/other_load` says so, and reports do not compare
the times of runs that overlapped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from whichlora.announcements import announce
from whichlora.config.plan import Plan
from whichlora.errors import in_a_line
from whichlora.evaluation.latency import BATCH_SIZE, NEW_TOKENS, PROMPT_TOKENS, inference_costs
from whichlora.parallel import lockstep

PRICE = "train/price"
_WEIGHTS = (".safetensors", ".bin")
"""Endings of the files that count; the tokenizer and the model card lie beside them."""


def training_costs(plan: Plan, metrics: Mapping[str, float], folder: Path) -> dict[str, float]:
    """Return the metrics of a training with the size of what it saved, and its price if the device has one.

    `train/price` is `train/seconds` at the option `device_price`, so it leaves out loading and scoring.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in _WEIGHTS)
    costs = {name: value for name, value in metrics.items() if name != PRICE}  # that of another run's price
    if size:
        costs["adapter/file_bytes"] = size
    if plan.options.device_price is not None:
        costs[PRICE] = plan.options.device_price * metrics["train/seconds"] / 3600
    return costs


def cost_params(plan: Plan) -> dict[str, object]:
    """Return the params that say how the costs of a run are measured; none for what is not."""
    params: dict[str, object] = {}
    if plan.options.device_price is not None:
        params["device_price"] = plan.options.device_price
    if _is_measured(plan):
        params |= {
            "inference_prompt_tokens": PROMPT_TOKENS,
            "inference_new_tokens": NEW_TOKENS,
            "inference_batch_size": BATCH_SIZE,
        }
    return params


class InferenceCosts:
    """Measures the costs of inference with a run's model.

    Attributes:
        metrics: `inference/...` of the model as it was saved, an adapter beside the base weights or a whole model, and
            `inference/merged/...` with the adapter merged.
    """

    def __init__(self, plan: Plan) -> None:
        self.metrics: dict[str, float] = {}
        self._plan = plan

    def measure(self, model: Any, *, merged: bool) -> None:
        """Measure a model, unless the option `latency` says that it is not to be measured.

        If that fails, as where memory runs out or an architecture cannot generate, a warning says so: a trained run is
        worth more than these figures.
        """
        if not _is_measured(self._plan):
            return
        if not merged:
            announce("Measuring inference.")
        costs: dict[str, float] = {}
        try:
            costs = inference_costs(model, context=self._plan.shape.context)
        except Exception as error:  # transformers' models raise many types
            print(f"warning: inference was not measured ({type(error).__name__}: {in_a_line(error)})", file=sys.stderr)
        prefix = "inference/merged" if merged else "inference"
        self.metrics |= {f"{prefix}/{name}": value for name, value in costs.items()}


def _is_measured(plan: Plan) -> bool:
    """Return whether a run measures inference: with `auto` unless it shares its process and time with packed runs."""
    measured = plan.options.latency
    return not lockstep.active() if measured is None else measured
