"""Conformance checks for variants that carry out whole runs: reloading with plain PEFT, resuming a killed run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch

from whichlora.data.encoding import Encoder
from whichlora.evaluation.scores import score
from whichlora.evaluation.scoring_methods import Likelihood
from whichlora.models.loading import load_model, load_tokenizer
from whichlora.testing.interruption import kill_after_step
from whichlora.testing.runs import predictions_of, run_plan, small_plan, tracking_in
from whichlora.training import base_cache, checkpoints
from whichlora.variants import get_variant


def check_training(name: str, model: str | Path, folder: Path, *, task: str = "atlas-nli", **options: Any) -> None:
    """Check that a run leaves the base unchanged, and that plain PEFT reloads its adapter to the logged predictions.

    `folder` holds the tracking database, which must not contain a run of the same spec.
    """
    variant = get_variant(name)
    chosen = {"variant": name, "task": task, **({"epochs": 2} if variant.trains else {}), **options}
    with tracking_in(folder):
        weights_before = _weights_digest(model)
        plan = small_plan(model, **chosen)
        result = run_plan(plan)
        assert mlflow.MlflowClient().get_run(result.run_id).info.status == "FINISHED", "the run did not finish"
        missing = {"test/en/f1", "test/tl/f1", "base/en/f1", "base/tl/f1", "gain/en", "gain/tl"} - result.metrics.keys()
        assert not missing, f"the run lacks the metrics {', '.join(sorted(missing))}"
        assert _weights_digest(model) == weights_before, "the run changed the base model's files"

        cached = base_cache.checkout(plan).state_dict()  # the base model of the next run of this process
        for key, tensor in load_model(plan.source, precision="fp32", quantization="none").state_dict().items():
            assert cached.pop(key).equal(tensor), f"the run left the base weight {key} changed"
        assert not cached, f"the run left {next(iter(cached))} in the base model"

        logged = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id))
        trained = reload_with_peft(name, model, logged / "adapter")
        encoder = Encoder(plan.task, load_tokenizer(plan.source))
        for test_set, test in plan.tests.items():
            before = pd.read_parquet(logged / "predictions" / f"{test_set}.parquet")
            again = score(trained, encoder, test.items, scoring=test.scoring, name=test_set)
            differing = sum(a != b for a, b in zip(before["predicted"], again.predicted, strict=True))
            # A random model's next token may be a tie up to rounding, and the run scored merged weights.
            allowed = 0 if plan.task.labels else 1
            assert differing <= allowed, (
                f"reloaded by plain PEFT, {name} predicts {differing} of {len(again.predicted)} {test_set} items "
                "differently than logged"
            )
            if again.probabilities is not None:
                columns = [f"p_{label}" for label in plan.task.labels]
                np.testing.assert_allclose(
                    before[columns],
                    again.probabilities,
                    atol=1e-4,
                    err_msg=f"probabilities of {name} on {test_set}, logged and after reloading by plain PEFT",
                )
        if variant.trains and plan.task.labels:
            items = plan.tests["en"].items
            base = score(reload_with_peft("none", model, logged), encoder, items, scoring=Likelihood(), name="base")
            adapted = score(trained, encoder, items, scoring=Likelihood(), name="trained")
            assert base.probabilities is not None
            assert adapted.probabilities is not None
            change = np.abs(base.probabilities - adapted.probabilities).max()
            assert change > 1e-3, f"the saved adapter of {name} has no effect: probabilities change by {change:g}"


def check_resuming(name: str, model: str | Path, folder: Path, *, step: int = 3, **options: Any) -> int:
    """Check that a run killed with SIGKILL after `step` of its ten steps and resumed equals an uninterrupted run.

    `folder` holds the tracking database, whose experiments `tests` and `uninterrupted` must not contain a run of the
    same spec.

    Returns:
        The step of the checkpoint from which the run resumed.
    """
    chosen = {"variant": name, "epochs": 2, **options}
    with tracking_in(folder, work="killed"):
        kill_after_step(model, step, chosen)
        (work,) = [path for path in (folder / "killed").iterdir() if path.is_dir()]
        checkpoint = checkpoints.last_complete(work)
        assert checkpoint is not None, f"the run killed after step {step} left no checkpoint"
        finished = int(checkpoint[0].name.split("-")[1])
        assert finished in (step - 1, step), f"the run killed after step {step} left a checkpoint of step {finished}"
        resumed = run_plan(small_plan(model, **chosen))
    with tracking_in(folder, work="whole"):
        whole = run_plan(small_plan(model, **chosen), experiment="uninterrupted")

        client = mlflow.MlflowClient()
        experiment = client.get_run(resumed.run_id).info.experiment_id
        runs = client.search_runs([experiment], "tags.`whichlora.kind` = 'run'")
        assert [run.info.run_id for run in runs] == [resumed.run_id], "the killed run was not resumed but restarted"
        assert runs[0].data.tags["whichlora.resumed"] == "true", "the resumed run is not tagged as such"
        for test_set in ("en", "tl"):
            one, other = predictions_of(resumed.run_id, test_set), predictions_of(whole.run_id, test_set)
            pd.testing.assert_frame_equal(one, other, obj=f"predictions of {name} on {test_set}, resumed and not")
        losses = {p.step: p.value for p in client.get_metric_history(whole.run_id, "train/loss")}
        again = client.get_metric_history(resumed.run_id, "train/loss")
        assert sorted(p.step for p in again) == sorted(losses), (
            "the resumed run logged losses for other steps, or twice"
        )
        np.testing.assert_allclose(
            [p.value for p in again], [losses[p.step] for p in again], rtol=0, atol=1e-9, err_msg=f"losses of {name}"
        )
    assert not any(path.is_dir() for path in (folder / "killed").iterdir()), "the resumed run left its work folder"
    return finished


def reload_with_peft(name: str, base: str | Path, saved: Path) -> Any:
    """Load a run's model with transformers and PEFT alone: the base with the adapter, or the fully trained model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    variant = get_variant(name)
    path = str(saved) if variant.trains_whole_model else str(base)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    return PeftModel.from_pretrained(model, str(saved)) if variant.has_adapter else model


def _weights_digest(model: str | Path) -> str:
    files = sorted(Path(model).glob("*.safetensors"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
