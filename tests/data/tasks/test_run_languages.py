"""Runs of tasks in other languages than English: another source, none, and several targets at once."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import folders
import mlflow
import pytest
from runs import plan_of, run_of

from whichlora.errors import OptionError
from whichlora.run.summary import short_scores, summary
from whichlora.tracking.client import connect


def params_of(run_id: str) -> dict[str, str]:
    return dict(connect().get_run(run_id).data.params)


def test_a_run_from_german_to_turkish_names_both(store: Path, tiny_model: str) -> None:
    task = folders.reviews_task(store / "data", "de", "tr", source="de", metrics=["macro_f1"])
    plan = plan_of(tiny_model, task=task, language="tr")
    assert plan.name == f"lora tr 0.5 seed 42 reviews tiny n=40 {plan.spec.fingerprint[:6]}"
    assert {role: {item.language for item in test.items} for role, test in plan.tests.items()} == {
        "en": {"de"},
        "tl": {"tr"},
    }
    result = run_of(plan)
    assert {"test/en/f1", "test/tl/macro_f1", "validation/en/f1", "gain/tl"} <= result.metrics.keys()
    told = summary(plan, result)
    assert re.search(r"German: macro F1 +\d+\.\d ", told)
    assert "Turkish: macro F1 " in told
    assert "English" not in told
    assert short_scores(plan, result.metrics).endswith(" Turkish")
    params = params_of(result.run_id)
    assert {key: params[key] for key in ("source_language", "target_languages", "headline", "task_option")} == {
        "source_language": "de",
        "target_languages": "tr",
        "headline": "macro_f1",
        "task_option": task,
    }
    logged = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="task.yaml"))
    assert logged.read_text(encoding="utf-8") == Path(task).read_text(encoding="utf-8")


def test_what_names_the_languages_is_not_in_the_fingerprint(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model)
    result = run_of(plan)
    params = params_of(result.run_id)
    assert (params["source_language"], params["target_languages"], params["headline"]) == ("en", "sw", "f1")
    assert "task_option" not in params
    spec = json.loads(
        Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="spec.json")).read_text()
    )
    assert not {"source_language", "target_languages", "headline"} & spec.keys()
    assert "English: F1 " in summary(plan, result)


def test_a_study_in_one_language_has_one_role(store: Path, tiny_model: str) -> None:
    task = folders.reviews_task(store / "data", "tr")
    plan = plan_of(tiny_model, task=task, language="tr")
    assert plan.name.startswith("lora tr 1 seed 42 reviews tiny")
    assert (plan.spec.tl_ratio, plan.spec.select_on, set(plan.tests)) == (1, "tl", {"tl"})
    result = run_of(plan)
    assert not any("/en/" in name for name in result.metrics)
    assert {"test/tl/f1", "validation/tl/f1", "base/tl/f1"} <= result.metrics.keys()
    assert params_of(result.run_id)["source_language"] == "none"
    given = plan_of(tiny_model, task=task, language="tr", tl_ratio=1, select_on="tl")
    assert given.spec.fingerprint == plan.spec.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tl_ratio": 0.5}, "tl_ratio=0.5: reviews has no source language; allowed are auto, 1"),
        ({"tl_ratio": 0}, "tl_ratio=0: reviews has no source language; allowed are auto, 1"),
        ({"composition": "addition"}, "composition=addition: reviews has no source language; allowed is substitution"),
        ({"select_on": "en"}, "select_on=en: reviews has no source language; allowed are auto, tl"),
        ({"select_on": "mean"}, "select_on=mean: reviews has no source language; allowed are auto, tl"),
    ],
)
def test_options_on_a_source_are_refused_without_one(
    tmp_path: Path, tiny_model: str, options: dict[str, Any], message: str
) -> None:
    task = folders.reviews_task(tmp_path, "tr")
    with pytest.raises(OptionError) as error:
        plan_of(tiny_model, task=task, language="tr", **options)
    assert str(error.value) == message


def test_several_targets_are_trained_together_and_scored_each(store: Path, tiny_model: str) -> None:
    task = folders.reviews_task(store / "data", "de", "tr", "az", source="de")
    plan = plan_of(tiny_model, task=task, language="[az, tr]", test_size=10)
    assert plan.spec.language == "tr,az"
    assert plan.spec.fingerprint == plan_of(tiny_model, task=task, language="tr:2,az:2", test_size=10).spec.fingerprint
    assert plan.spec.fingerprint != plan_of(tiny_model, task=task, language="tr:2,az", test_size=10).spec.fingerprint
    result = run_of(plan)
    each = [result.metrics[f"test/tl/{code}/f1"] for code in ("tr", "az")]
    assert sum(each) / 2 == pytest.approx(result.metrics["test/tl/f1"])  # five items of each
    assert "Turkish and Azerbaijani: F1 " in summary(plan, result)
    assert params_of(result.run_id)["target_languages"] == "tr,az"
    # Without target items, one adapter serves every mixture.
    zero = [
        plan_of(tiny_model, task=task, language=language, tl_ratio=0, test_size=10).spec
        for language in ("tr", "az", "tr,az")
    ]
    assert len({spec.training_fingerprint for spec in zero}) == 1
    assert len({spec.fingerprint for spec in zero}) == 3


def test_runs_that_differ_have_different_names(tmp_path: Path, tiny_model: str, byte_model: str) -> None:
    task = folders.reviews_task(tmp_path, "de", "tr", source="de")
    options = {"task": task, "language": "tr"}
    plans = [
        plan_of(tiny_model, **options),
        plan_of(byte_model, **options),
        *(plan_of(tiny_model, **options, **{key: value}) for key, value in (("rank", 4), ("train_size", 30))),
    ]
    assert len({plan.name for plan in plans}) == 4
    assert "n=" in plans[0].name
    edited = folders.reviews_task(tmp_path, "de", "tr", source="de", name="reviews", sizes={"train": 41})
    assert "n=" not in plan_of(tiny_model, **{**options, "task": edited}, train_size=41).name


def test_the_files_that_are_read_are_logged_with_their_digests(store: Path, tiny_model: str) -> None:
    data = folders.xnli_folder(store / "xnli")
    result = run_of(plan_of(tiny_model, task="xnli", data_dir=data, language="sw"))
    sources = {
        tag.value: json.loads(given.dataset.source)
        for given in connect().get_run(result.run_id).inputs.dataset_inputs
        for tag in given.tags
    }
    test = sources["test/tl"]
    path = Path(data) / "test-sw.tsv"
    assert test == {
        "task": "xnli",
        "data_dir": data,
        "read": {str(path): hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    assert {Path(name).name for name in sources["train"]["read"]} == {"dev-en.tsv", "dev-sw.tsv"}


def test_retention_is_measured_in_the_other_tasks_own_languages(store: Path, tiny_model: str) -> None:
    trained = folders.reviews_task(store / "a", "de", "tr", source="de")
    retained = folders.reviews_task(store / "b", "az", "tr", source="az", name="kept")
    result = run_of(plan_of(tiny_model, task=trained, language="tr", retention=retained, retention_size=6))
    assert {"test/retention/en/f1", "test/retention/tl/f1"} <= result.metrics.keys()
    # Its source is the target language, so it has one role.
    turned = folders.reviews_task(store / "b", "az", "tr", source="tr", name="turned")
    assert "retention/tl" not in plan_of(tiny_model, task=trained, language="tr", retention=turned).tests
    elsewhere = folders.reviews_task(store / "b", "az", name="elsewhere")
    with pytest.raises(OptionError, match=r"^retention=.*elsewhere.yaml: has no items in tr, the target language"):
        plan_of(tiny_model, task=trained, language="tr", retention=elsewhere)
    with pytest.raises(OptionError, match=r"^retention=.*reviews.yaml: is the trained task"):
        plan_of(tiny_model, task=trained, language="tr", retention=trained)
