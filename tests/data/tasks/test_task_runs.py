"""Runs on folders of data, from options to tracked results."""

from __future__ import annotations

import math
from pathlib import Path

import folders
import mlflow
import pandas as pd
import pytest
from runs import plan_of, run_of

from whichlora.data import windows
from whichlora.errors import OptionError
from whichlora.run.summary import summary


@pytest.mark.slow
def test_a_run_with_prompts_in_the_language_of_the_item(store: Path, tiny_model: str) -> None:
    data = folders.xnli_folder(store / "xnli")
    plan = plan_of(tiny_model, task="xnli", data_dir=data, language="ur", prompt_language="item")
    english = plan_of(tiny_model, task="xnli", data_dir=data, language="ur")
    assert plan.spec.fingerprint != english.spec.fingerprint
    assert plan.spec.training_fingerprint != english.spec.training_fingerprint
    assert plan.spec.test_digests["en"] == english.spec.test_digests["en"]
    assert plan.spec.test_digests["tl"] != english.spec.test_digests["tl"]
    result = run_of(plan)
    assert {"floor/tl/overlap", "validation/tl/f1", "gain/tl"} <= result.metrics.keys()
    folder = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="predictions"))
    table = pd.read_parquet(folder / "tl.parquet")
    assert set(table["gold"]) == {"entailment", "neutral", "contradiction"}
    assert set(table["predicted"]) <= set(table["gold"])
    assert list(table["id"]) == [item.id for item in plan.tests["en"].items]


def test_pooled_languages_may_have_prompts_of_their_own(tmp_path: Path, tiny_model: str) -> None:
    data = folders.xnli_folder(tmp_path / "xnli")
    options = {"task": "xnli", "data_dir": data, "language": "pooled"}
    items = plan_of(tiny_model, **options, prompt_language="item").tests["tl"].items
    english = plan_of(tiny_model, **options)
    assert {item.language for item in items} == {"sw", "ur", "hi"}
    assert english.tests["tl"].items == items


@pytest.mark.slow
def test_a_language_that_is_only_scored_has_a_result_without_validation(store: Path, tiny_model: str) -> None:
    data = folders.tydiqa_folder(store / "tydiqa")
    options = {"task": "tydiqa", "data_dir": data, "language": "bn", "tl_ratio": 0, "test_size": "auto"}
    plan = plan_of(tiny_model, **options)
    assert plan.spec.test_size is None
    result = run_of(plan)
    assert {"validation/en/f1", "test/en/f1", "test/tl/f1", "base/tl/f1", "gain/tl"} <= result.metrics.keys()
    assert not any(name.startswith("validation/tl") for name in result.metrics)
    finished = mlflow.MlflowClient().get_run(result.run_id)
    contexts = {tag.value for given in finished.inputs.dataset_inputs for tag in given.tags}
    assert contexts == {"train", "validation/en", "test/en", "test/tl"}
    assert finished.data.params["test_size"] == "None"
    told = summary(plan, result)
    assert [line.split()[-1] for line in told.splitlines() if ": F1 " in line] == ["6", "5"]
    again = run_of(plan_of(tiny_model, **options))
    assert again.run_id == result.run_id
    with pytest.raises(OptionError, match=r"^tl_ratio=0.5: tydiqa has no bn items"):
        plan_of(tiny_model, **{**options, "tl_ratio": 0.5})


def test_the_scores_of_a_run_without_training_are_the_scores_of_the_base(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folders.xnli_folder(store / "xnli")
    untrained = run_of(plan_of(tiny_model, task="xnli", data_dir=data, variant="none"))
    assert "base sw" not in capsys.readouterr().err  # nothing is scored a second time
    trained = run_of(plan_of(tiny_model, task="xnli", data_dir=data))
    assert "base sw" not in capsys.readouterr().err
    for role in ("en", "tl"):
        assert untrained.metrics[f"gain/{role}"] == 0
        assert trained.metrics[f"base/{role}/f1"] == untrained.metrics[f"test/{role}/f1"]
    bases = mlflow.search_runs(search_all_experiments=True, filter_string="tags.`whichlora.kind` = 'base'")
    assert len(bases) == 2
    predictions = mlflow.artifacts.download_artifacts(run_id=bases["run_id"][0], artifact_path="predictions")
    (file,) = Path(predictions).iterdir()
    own = mlflow.artifacts.download_artifacts(run_id=untrained.run_id, artifact_path=f"predictions/{file.name}")
    pd.testing.assert_frame_equal(pd.read_parquet(file), pd.read_parquet(own))


@pytest.mark.slow
def test_a_run_on_long_contexts(store: Path, tiny_model: str) -> None:
    """Windows are used in training, validation, scoring, base model scores and the reload check."""
    data = folders.tydiqa_folder(store / "tydiqa", sentences=175)
    sizes = {"train_size": 8, "validation_size": 2, "test_size": 2, "batch_size": 4}
    plan = plan_of(tiny_model, task="tydiqa", data_dir=data, tl_ratio=0.5, **sizes)
    for items in (plan.mixture.train, plan.mixture.validation["en"], plan.tests["tl"].items):
        assert min(len(plan.tokenizer(plan.task.prompt(item)).input_ids) for item in items) > windows.PROMPT_TOKENS
    result = run_of(plan)
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert 0 <= result.metrics["test/tl/f1"] <= 1
