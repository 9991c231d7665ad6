"""Measures one part on a GPU and appends its result to a file: `python -m benchmarks.gpu PART FOLDER`."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import items, scoring, training
from benchmarks.gpu.peer import load_base
from benchmarks.gpu.shapes import SHAPES, save_random
from benchmarks.harness import Bench, Seconds, alternate, quartiles_of
from benchmarks.ours import plan_of
from benchmarks.workers import ROOT, Worker, running_worker
from whichlora.data.encoding import Encoder
from whichlora.models.loading import locate

STEPS = 4
"""Optimizer steps of 16 items per training measurement."""
_SIZES = {"train_size": "320", "batch_size": "8", "epochs": "1", "validation_size": "6", "test_size": "6"}
_STEP = re.compile(rb"\b([3-9]|[1-3]\d)/40 \[")
"""Matches the progress bar of a training of these sizes that has taken a few of its 40 steps."""


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes:
        model: the folder of a model of `shapes`.
        scratch: a temporary folder.
        pairs: measurements of each side.
        items: items per scoring measurement.
    """

    model: str
    scratch: Path
    pairs: int
    items: int

    def bench(self) -> Bench:
        """Return the settings as those of the other benchmarks."""
        return Bench(
            model=self.model,
            folder=self.model,
            pairs=self.pairs,
            steps=STEPS,
            items=self.items,
            answers=0,
            probed=0,
            runs=0,
            threads=torch.get_num_threads(),
            peer_python=None,
            scratch=self.scratch,
        )


def measure_training(setting: Setting, *, quantization: str) -> dict[str, Any]:
    """Train alternately with this project and Trainer + PEFT; return milliseconds an item, ratio and peak memory."""
    bench = setting.bench()
    inputs = training.prepare(bench, STEPS * training.BATCH) | {"precision": "bf16", "quantization": quantization}
    request = {"count": STEPS * training.BATCH, "batch_size": training.BATCH}
    memory: dict[str, list[float]] = {"ours": [], "theirs": []}

    def train(side: str, worker: Worker) -> Seconds:
        answer = worker.ask("train", **request)
        memory[side].append(answer["gpu_peak_mib"])
        return answer

    with ExitStack() as stack:
        workers = {}
        for side, module in (("ours", training.OURS), ("theirs", "benchmarks.gpu.peer")):
            log = setting.scratch / f"{side}.log"
            workers[side] = stack.enter_context(running_worker(module, threads=bench.threads, log=log))
            workers[side].ask("load", **inputs)
        equal = training.check_gradients(*workers.values(), setting.scratch, "bf16")
        sides = {side: partial(train, side, worker) for side, worker in workers.items()}
        measured = alternate(f"training {quantization}", sides, setting.pairs)
    peaks = {f"{side}_gpu_peak_mib": max(values) for side, values in memory.items()}
    return {**_summary(measured, STEPS * training.BATCH), **peaks, "gradients_differ_by": equal.value}


def measure_scoring(setting: Setting) -> dict[str, Any]:
    """Score labelled items in bf16 here and by `generate()`; random weights write no label that could be compared."""
    plan = plan_of(setting.model, task="atlas-nli", precision="bf16")
    encoder = Encoder(plan.task, plan.tokenizer)
    adapter = training.save_start_adapter(plan.source, setting.scratch / "start")
    test_items = items.nli_items(encoder, "test", setting.items)
    plain = load_base(setting.model, quantization="none")
    sides = scoring.both_sides(plan, plain, adapter, test_items, batch_size=scoring.BATCH, found={})
    return _summary(alternate("scoring", sides, setting.pairs), setting.items)


def check_run(setting: Setting) -> dict[str, Any]:
    """End a run by SIGTERM while it trains, resume it, and return what it logged about the device.

    Raises:
        RuntimeError: the run did not end with a checkpoint, or did not resume from it.
    """
    from whichlora.tracking.client import connect

    database = f"sqlite:///{setting.scratch / 'mlflow.db'}"
    variables = {"MLFLOW_TRACKING_URI": database, "WHICHLORA_WORK": str(setting.scratch / "work")}
    options = {**_SIZES, "precision": "bf16", "model": setting.model}
    words = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-m", "whichlora.run", *words]
    status, output = _run(command, variables, end_after=_STEP)
    checkpoints = sorted(path.parent.name for path in (setting.scratch / "work").rglob("checkpoint-*/complete.json"))
    if status != 128 + signal.SIGTERM or not checkpoints:
        raise RuntimeError(f"SIGTERM: status {status}, checkpoints {checkpoints}: {output[-2000:]}")
    status, output = _run(command, variables)
    if status or f"Resuming from {checkpoints[-1]}" not in output:
        raise RuntimeError(f"not resumed from {checkpoints[-1]}: status {status}: {output[-2000:]}")
    os.environ.update(variables)
    client = connect()
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.`whichlora.kind` = 'run'")
    logged = {name: value for name, value in run.data.metrics.items() if name.split("/")[0] in ("gpu", "host")}
    if torch.cuda.is_available() and "gpu/memory_max_mb" not in logged:
        raise RuntimeError(f"no telemetry of the GPU: {sorted(logged)}")
    return {"resumed_from": checkpoints[-1], **logged}


def _run(command: Sequence[str], variables: Mapping[str, str], *, end_after: re.Pattern[bytes] | None = None) -> Any:
    """Run a command, end it once its output matches, and return its status and output."""
    output = b""
    environment = {**os.environ, **variables}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        while chunk := os.read(process.stdout.fileno(), 65536):
            output += chunk
            if end_after and end_after.search(output):
                process.send_signal(signal.SIGTERM)
                end_after = None
    return process.returncode, output.decode(errors="replace")


def _summary(measured: Mapping[str, Mapping[str, Sequence[float]]], count: int) -> dict[str, Any]:
    """Return milliseconds an item of both sides, and the ratio of medians, theirs over ours."""
    each = {side: quartiles_of([1000 * seconds / count for seconds in by["wall"]]) for side, by in measured.items()}
    ratio = each["theirs"]["median"] / each["ours"]["median"]
    return {**{f"{side}_ms_an_item": values for side, values in each.items()}, "ratio": ratio}


PARTS: Mapping[str, Callable[[Setting], dict[str, Any]]] = {
    "training-bf16": partial(measure_training, quantization="none"),
    "training-nf4": partial(measure_training, quantization="nf4"),
    "scoring": measure_scoring,
    "run": check_run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Save a model, or measure one part and append its result to results.jsonl."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("part", choices=["model", *PARTS])
    parser.add_argument("output", type=Path, help="folder of results.jsonl")
    parser.add_argument("--shape", choices=list(SHAPES), required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model; written by the part `model`")
    parser.add_argument("--pairs", type=int, default=3, help="measurements of each side")
    parser.add_argument("--items", type=int, default=480, help="items per scoring measurement")
    args = parser.parse_args(arguments)
    if args.part == "model":
        save_random(args.shape, args.model)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        model = str(locate(str(args.model)).name_or_path)
        result = PARTS[args.part](Setting(model, Path(scratch), args.pairs, args.items))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    line = json.dumps({"part": args.part, "shape": args.shape, "device": device, "torch": torch.__version__, **result})
    with (args.output / "results.jsonl").open("a") as file:
        print(line, file=file)
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
