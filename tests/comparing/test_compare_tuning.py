"""`compare` with `tune`: studies find the settings before the first round."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from invented import SIZES, in_another_folder, read, rule
from mlflow.tracking import MlflowClient

from comparing.compare import OPTIONS, main
from comparing.methods import comparison_of
from comparing.rule import Rule
from comparing.studies import Studies, read_studies
from tuning.finalists import Finalist
from tuning.study_config import FRESH_SEEDS, TUNING_SEED
from tuning.tuned import Tuned
from whichlora.errors import OptionError
from whichlora.training import trainer

SPACE = "learning_rate: [1e-3, 5e-3, 2e-2]\nrank: [2, 4]\nalpha: [16]\ntarget_modules: [all-linear]\n"
SMALL = {"train_size": 64, "validation_size": 6, "test_size": 40, "batch_size": 4, "epochs": 1}


def studies(
    model: str, *, seconds: float = 60, budget: float | None = None, given: Rule | None = None, **more: Any
) -> Studies:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | {"model": model, "variant": "lora,vera"}
    texts |= {name: str(value) for name, value in {**SIZES, "tune": "1", "train_size": 128, **more}.items()}
    return read_studies(texts, given or rule(), seconds=seconds, budget=budget)


def found(subject: Studies, *origins: str) -> list[Tuned]:
    """Return invented results of studies: the arm `recommended`, or the example of a point."""
    results = []
    for config, origin in zip(subject.configs, origins, strict=True):
        best = Finalist(origin=origin, point=config.example, fresh=(0.9, 0.8))
        name = config.name()
        results.append(
            Tuned(config=config, study=name, run_id="0" * 32, finalists=[best], best=best, seconds=9, missing=())
        )
    return results


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("--file", "x.yaml", "--tune", "1"), "tune=1: must be none with a file"),
        (("--variant", "lora,vera", "--rungs", "3"), "rungs=3: must be 2 without tune"),
        (("--variant", "lora,vera", "--trials", "4"), "trials=4: must be auto without tune"),
        (("--variant", "lora,vera", "--space", "continuous"), "space=continuous: must be paper without tune"),
        (("--variant", "lora,vera", "--tune", "1", "--arm", "recommended"), "arm=recommended: must be matched with"),
        (("--variant", "lora,vera", "--tune", "two"), "tune=two: must be hours, money (50EUR) above 0"),
        (("--variant", "lora,vera", "--tune", "5EUR"), "device_price=auto: must be what a device-hour costs, in EUR"),
    ],
)
def test_bad_options(given: tuple[str, ...], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seconds": 1800, "budget": 3600}, "tune=1: 60 min for 2 methods leave nothing of the budget of 60 min"),
        ({"variant": "lora"}, "variant=lora: must be two or more methods; there is LoRA alone"),
        ({"variant": "lora,none"}, "variant=lora,none: has none; "),
        ({"train_size": 40}, "rungs=2: must be at most 1 with 40 training items"),
        ({"trials": 3}, "trials=3: must be at least 4 with rungs=2"),
        ({"space": "absent.yaml"}, "space="),
        ({"given": rule(seeds=(8998,))}, "seed=9007: must stay below 9000"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tiny_model: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        studies(tiny_model, **changes)


def test_no_trial_has_a_seed_or_an_item_of_the_test(tiny_model: str) -> None:
    subject = studies(tiny_model)
    tested = {
        item.id
        for plans in subject.draft.plans(1).values()
        for plan in plans
        for test in plan.tests.values()
        for item in test.items
    }
    assert max(subject.draft.rule.rounds) < TUNING_SEED < min(FRESH_SEEDS)
    for config in subject.configs:
        for rung in range(config.rungs.number):
            items = config.plan(config.example, TUNING_SEED, rung=rung).mixture
            assert not tested & {item.id for item in items.train}
            assert not tested & {item.id for role in items.validation.values() for item in role}


def test_the_settings_found_are_those_of_arms_of_a_file(tmp_path: Path, tiny_model: str) -> None:
    subject = studies(tiny_model)
    tuned = found(subject, "trial 3", "recommended")
    runs = [each.run(1) for each in tuned]
    comparison = comparison_of(None, "", runs, rule(), ("variant", ""), tuned=tuned, tuning_seconds=18)
    arms = [{k: v for k, v in each.arm.items() if k != "source"} for each in tuned if each.arm]
    content = {"name": "invented", "defaults": {**SIZES, "train_size": 128, "model": tiny_model}, "arms": arms}
    (tmp_path / "arms.yaml").write_text(yaml.safe_dump(content))
    assert comparison.digest == read(str(tmp_path / "arms.yaml")).digest != subject.draft.digest
    assert [entry["arm"] for entry in comparison.settings] == [each.arm for each in tuned]


def test_a_method_has_one_name_whatever_its_study_in_each_language_has_found(tiny_model: str) -> None:
    subject = studies(tiny_model, language="sw ur", seconds=60)
    assert (len(subject.configs), subject.seconds, subject.draft.tuning_seconds) == (4, 30, 120)
    tuned = found(subject, "trial 1", "trial 2", "recommended", "trial 3")
    runs = [each.run(1) for each in tuned]
    comparison = comparison_of(None, "", runs, rule(), ("variant", ""), tuned=tuned)
    assert comparison.methods == subject.draft.methods == ("LoRA", "VeRA")
    assert [(s["method"], s["language"]) for s in comparison.settings] == [
        (method, language) for language in ("sw", "ur") for method in ("LoRA", "VeRA")
    ]


def test_the_plan_begins_with_tuning_and_a_dry_run_writes_nothing(
    empty_folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**SIZES, "train_size": 128, "model": tiny_model, "variant": "lora,vera", "tune": "0.5", "budget": "2"}
    options = [part for name, value in given.items() for part in (f"--{name}", str(value))]
    assert main([*options, "--dry_run", "true"]) == 0
    printed = capsys.readouterr().out
    assert "Comparison in the experiment whichlora: LoRA and VeRA\n" in printed
    assert "1. Settings: for each method at most 30 min of trials in 2 rungs; then the 3 best points" in printed
    known = "how many is known once a run with this model and task has finished on this machine"
    assert f"   vera: as many trials as fit in 1800 s; {known}\n2. Rounds of seeds 1, 2, 3" in printed
    assert list(empty_folder.iterdir()) == []


@pytest.mark.slow
def test_where_every_training_of_a_study_diverges_it_says_so(
    moods_task: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = trainer.prove_step

    def prove_step(step: int, loss: Any, norm: Any, model: Any, **options: Any) -> bool:
        return check(
            step, loss * math.nan if model.peft_config["default"].peft_type == "VERA" else loss, norm, model, **options
        )

    monkeypatch.setattr(trainer, "prove_step", prove_step)
    (moods_task / "space.yaml").write_text(SPACE)
    assert main(command(tiny_model)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert [
        line for line in errors if re.search(r"\bvera/.*: no best point, training diverged for every finalist$", line)
    ]
    assert not [line for line in errors if re.search(r"\blora/.*: no best point", line)]
    assert [line for line in errors if "leave the method out" in line]
    assert not runs("comparison") + runs("run")
    assert len(runs("study")) == 2


def command(model: str) -> list[str]:
    options = {**SMALL, "task": "./task.yaml", "language": "tr", "model": model, "variant": "lora,vera"}
    options |= {"tune": 1, "trials": 4, "space": "space.yaml", "max_seeds": 3, "margin": 20, "budget": 9}
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def runs(kind: str) -> list[Any]:
    client = MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(ids, f"tags.`whichlora.kind` = '{kind}'"))


def start(model: str, *more: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "whichlora.compare", *command(model), *more]
    return subprocess.Popen(arguments, start_new_session=True)


def answer() -> dict[str, Any]:
    """Return what was found, and check what it rests on."""
    (record,) = runs("comparison")
    assert record.info.status == "FINISHED"
    text: dict[str, Any] = json.loads(mlflow.artifacts.load_text(f"{record.info.artifact_uri}/answer.json"))
    settings = text["settings"]
    assert {entry["run_id"] for entry in settings} == {run.info.run_id for run in runs("study")}
    assert record.data.params["studies"] == ",".join(entry["study"] for entry in settings)
    assert text["cost"]["tuning"] == pytest.approx(sum(entry["seconds"] for entry in settings))
    assert text["cost"]["spent"] > text["cost"]["tuning"] > 0
    assert len([s for s in text["sentences"] if s.startswith("Tuned: ")]) == 2
    assert "of which for tuning; " in " ".join(text["sentences"])
    for run in runs("run"):
        (arm,) = [e["arm"] for e in settings if e["arm"]["variant"] == run.data.params["variant"]]
        assert run.data.params["arm"] == arm["arm"]
        if arm["arm"] == "tuned":
            assert float(run.data.params["learning_rate"]) == arm["learning_rate"]
    for study in ("lora", "vera"):  # no training was done twice
        trials = [r for r in runs("trial") if r.data.params.get("variant") == study]
        assert len({r.data.tags["whichlora.fingerprint"] for r in trials}) == len(trials)
    kept = {key: text[key] for key in ("lead", "ended", "take", "seeds", "standings", "comparison")}
    return kept | {"arms": [entry["arm"] for entry in settings]}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_while_it_tunes_it_ends_with_the_answer_of_an_uninterrupted_pass(
    moods_task: Path, tiny_model: str
) -> None:
    """After the kill two processes share what is left, one of which has two workers."""
    (moods_task / "space.yaml").write_text(SPACE)
    assert start(tiny_model).wait(900) == 0
    whole = answer()
    assert [arm["variant"] for arm in whole["arms"]] == ["lora", "vera"]
    assert start(tiny_model).wait(300) == 0  # which has nothing left to do
    assert answer() == whole

    in_another_folder(moods_task / "killed")
    process = start(tiny_model)
    deadline = time.monotonic() + 300
    while len(runs("trial")) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(runs("trial")) >= 3
    assert not runs("comparison")
    processes = [start(tiny_model), start(tiny_model, "--workers", "2")]
    assert [each.wait(900) for each in processes] == [0, 0]
    assert answer() == whole
