"""The adapters of trials: loaded again, and kept or removed by `keep_adapters`, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from small_studies import call, runs, study

from tuning.divergence import converged
from tuning.retries import original_number
from whichlora.evaluation.scores import score
from whichlora.run import pipeline

# Runs `tune` with the given arguments, and is killed when it removes the first adapter.
KILLED = """
import os, signal, sys
from tuning import kept_adapters, tune
kept_adapters.KeptAdapters._remove = lambda self, run: os.kill(os.getpid(), signal.SIGKILL)
tune.main(sys.argv[1:])
"""


def with_adapter() -> list[str]:
    """Return the trials whose runs have an adapter, as their tag names them; one name for all of a fresh seed."""
    client = MlflowClient()
    return sorted(
        run.data.tags["whichlora.trial"] for run in runs("trial") if client.list_artifacts(run.info.run_id, "adapter")
    )


def best(options: dict[str, str]) -> str:
    trials = converged(study(options).trials())
    return str(original_number(max(trials, key=lambda trial: (trial.value, -trial.number))))


def test_the_adapter_of_a_trial_predicts_with_plain_peft_what_its_validation_predicted(
    options: dict[str, str], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trained: list[Any] = []
    fit = pipeline.fit

    def recorded(plan: Any, *arguments: Any, **more: Any) -> Any:
        record = fit(plan, *arguments, **more)
        trained.append((plan, record))
        return record

    monkeypatch.setattr(pipeline, "fit", recorded)
    opened = study(options, validation_size="6")
    assert opened.step(limit=1, allow_new=True) == "worked"
    ((plan, record),) = trained
    (run,) = runs("trial")
    folder = MlflowClient().download_artifacts(run.info.run_id, "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    assert record.predicted.keys() == {"en", "tl"}
    for role, before in record.predicted.items():
        items = plan.mixture.validation[role]
        assert score(model, plan.encoder(), items, scoring=plan.scoring, name="again").predicted == before


@pytest.mark.slow
def test_each_option_applies_to_the_whole_study(options: dict[str, str]) -> None:
    assert call(options, trials=2) == 0
    assert with_adapter() == sorted(run.data.tags["whichlora.trial"] for run in runs("trial"))
    assert call(options, trials=3, keep_adapters="best") == 0
    assert with_adapter() == [best(options)]
    assert call(options, trials=3, keep_adapters="none") == 0
    assert not with_adapter()
    assert "whichlora.adapter" not in {tag for run in runs("trial") for tag in run.data.tags}


@pytest.mark.slow
def test_a_worker_killed_before_it_removes_the_former_best_leaves_both(options: dict[str, str]) -> None:
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    command = [sys.executable, "-c", KILLED, *arguments, "--keep_adapters", "best", "--trials", "12"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    left = with_adapter()
    assert len(left) == 2
    assert best(options) in left
    assert call(options, trials=len(study(options).counted()), keep_adapters="best") == 0
    assert with_adapter() == [best(options)]


@pytest.mark.slow
def test_two_workers_keep_the_best_adapter_on_a_server(
    options: dict[str, str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{root / 'src'}:{root}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    mlflow.set_tracking_uri(server)
    assert call(options, trials=6, workers=2, keep_adapters="best") == 0
    found = study(options).counted()
    assert len({t.user_attrs["worker"] for t in found}) == 2
    assert with_adapter() == [best(options)]
