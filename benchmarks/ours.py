"""Serves this project's training as one side of a comparison."""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from benchmarks.peers.usual import GradientRecorder
from benchmarks.workers import Stopwatch, serve
from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.data.encoding import Encoded
from whichlora.models.memory import freeze_gc
from whichlora.models.quiet import quiet
from whichlora.training.trainer import train

if TYPE_CHECKING:
    from whichlora.config.plan import Plan


def plan_of(model: str, **options: Any) -> Plan:
    """Resolve the plan of a run with these options; by default, LoRA of rank 8 on all linear layers."""
    from whichlora.config.resolve import resolve

    texts = {name: default for name, (default, _) in RUN_OPTIONS.items()} | {"chat_template": "none"}  # as the peers do
    return resolve(parse_options(texts | {"model": model} | {name: str(value) for name, value in options.items()}))


def with_start_adapter(plan: Plan, adapter: str) -> Plan:
    """Return the plan with training started from a saved adapter instead of a fresh one."""

    def load(model: Any) -> None:
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(Path(adapter) / "adapter_model.safetensors"))

    return replace(plan, variant=replace(plan.variant, after_attach=load))


class Ours:
    """This project's training as one side of a comparison."""

    def load(self, *, model: str, items: str, adapter: str, precision: str, quantization: str = "none") -> None:
        """Load model and items for the requests that follow; training starts from the saved `adapter`."""
        quiet()
        self.examples = [Encoded(e["prompt"], e["answer"]) for e in json.loads(Path(items).read_text())]
        options = {"precision": precision, "quantization": quantization, "epochs": 1, "learning_rate": 2e-3}
        plan = plan_of(model, **options, train_size=len(self.examples))
        self.plan = with_start_adapter(plan, adapter)
        freeze_gc()

    def train(self, *, count: int, batch_size: int) -> dict[str, float]:
        """Train on the first `count` items and return the seconds of training alone."""
        watch = Stopwatch()
        self._fit(self.plan, count, batch_size, watch)
        return watch.seconds()

    def gradients(self, *, count: int, to: str) -> None:
        """Write the gradients of the first `count` items, taken as one batch, to a file."""
        recorders = []

        def recorder(model: Any, rate: float, decay: float, options: Any) -> GradientRecorder:
            named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
            recorders.append(GradientRecorder(named, lr=rate))
            return recorders[0]

        plan = replace(self.plan, variant=replace(self.plan.variant, optimizer=recorder))
        self._fit(plan, count, count, Stopwatch())
        save_file(recorders[0].first, to)

    def _fit(self, plan: Plan, count: int, batch_size: int, watch: Stopwatch) -> None:
        spec = replace(plan.spec, train_size=count, batch_size=batch_size)
        with tempfile.TemporaryDirectory() as work:
            train(replace(plan, spec=spec), list(itertools.islice(self.examples, count)), Path(work), telemetry=watch)


if __name__ == "__main__":
    serve(Ours())
