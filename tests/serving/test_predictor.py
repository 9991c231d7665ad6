"""A saved model predicts what its run predicted, without the data of the task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import folders
import mlflow
import numpy as np
import pandas as pd
import pytest
from chat_models import FAMILIES, save_chat_model
from runs import plan_of, run_of

from whichlora.config.plan import Plan
from whichlora.data.tasks.items import named_texts
from whichlora.errors import OptionError
from whichlora.serving import saved as saved_models
from whichlora.serving.base_model import find_base
from whichlora.serving.predictor import Predictor
from whichlora.testing.runs import predictions_of


def stored(plan: Plan, folder: Path, run_id: str | None = None) -> Path:
    """Write what a model needs to a folder, with the adapter of a run."""
    model = saved_models.of_plan(plan, {})
    assert model is not None
    folder.mkdir()
    model.write(folder)
    if run_id is not None:
        adapter = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter")
        shutil.copytree(adapter, folder / "adapter")
    return folder


def rows_of(plan: Plan, role: str = "tl") -> pd.DataFrame:
    """Return the texts of a run's test items, with their languages."""
    return pd.DataFrame([{**named_texts(item), "language": item.language} for item in plan.tests[role].items])


def assert_same(found: pd.DataFrame, logged: pd.DataFrame) -> None:
    assert found["predicted"].tolist() == logged["predicted"].tolist()
    columns = [name for name in logged if name.startswith("p_")]
    assert list(found.columns) == ["predicted", *columns]
    np.testing.assert_allclose(found[columns], logged[columns], atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "lora"},
        {"variant": "pissa", "precision": "bf16"},
        {"variant": "none", "prompt_language": "item"},
        {"variant": "full"},
        {"scoring": "generate", "variant": "none"},
        {"task": "atlas-qa", "language": "hi"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_predictions_are_those_of_the_run(
    store: Path, tiny_model: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_model, **options)
    result = run_of(plan)
    folder = stored(plan, store / "model", result.run_id if plan.variant.trains else None)
    (store / "elsewhere").mkdir()
    monkeypatch.chdir(store / "elsewhere")
    predictor = Predictor.load(folder)
    for role in plan.tests:
        frame = rows_of(plan, role)
        assert_same(predictor.predict(frame), predictions_of(result.run_id, role))
    shuffled = frame.sample(frac=1, random_state=0)
    expected = predictions_of(result.run_id, role).loc[shuffled.index]
    assert_same(predictor.predict(shuffled, batch_size=4), expected)
    assert predictor.labels == plan.task.labels
    assert set(predictor.fields) == set(frame.columns) - (
        {"language"} if options.get("prompt_language") is None else set()
    )


def test_a_declared_task_in_a_chat_template_needs_no_file_of_it(store: Path, tmp_path: Path) -> None:
    base = str(save_chat_model(tmp_path / "base", FAMILIES["qwen3"]))
    task = folders.reviews_task(store / "data", "de", "tr", source="de")
    plan = plan_of(base, task=task, language="tr")
    assert plan.spec.chat_template != "none"
    result = run_of(plan)
    folder = stored(plan, store / "model", result.run_id)
    shutil.rmtree(store / "data")
    predictor = Predictor.load(folder)
    assert predictor.fields == ("text",)
    assert_same(predictor.predict(rows_of(plan)), predictions_of(result.run_id, "tl"))


def test_a_moved_base_model_is_given(store: Path, tiny_model: str, byte_model: str) -> None:
    base = shutil.copytree(tiny_model, store / "base")
    plan = plan_of(base, variant="none")
    folder = stored(plan, store / "model")
    expected = Predictor.load(folder).predict(rows_of(plan))
    shutil.move(base, store / "moved")
    with pytest.raises(OptionError, match=r"base=.*is not found here: set base to a folder with the model of digest"):
        Predictor.load(folder)
    pd.testing.assert_frame_equal(Predictor.load(folder, str(store / "moved")).predict(rows_of(plan)), expected)
    with pytest.raises(OptionError, match="is another model than"):
        Predictor.load(folder, byte_model)
    assert not Predictor.load(folder, byte_model, any_base=True).predict(rows_of(plan)).equals(expected)
    shutil.copytree(byte_model, base)
    with pytest.raises(OptionError, match="has another model now"):
        Predictor.load(folder)


def test_a_whole_model_with_its_tokenizer_needs_no_base(store: Path, tiny_model: str) -> None:
    base = shutil.copytree(tiny_model, store / "base")
    plan = plan_of(base, variant="full")
    result = run_of(plan)
    folder = stored(plan, store / "model", result.run_id)
    plan.tokenizer.save_pretrained(folder / "adapter")
    shutil.rmtree(base)
    assert_same(Predictor.load(folder).predict(rows_of(plan)), predictions_of(result.run_id, "tl"))


def test_rows_that_cannot_be_used_are_named(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model, variant="none", prompt_language="item")
    predictor = Predictor.load(stored(plan, store / "model"))
    good = rows_of(plan).head(3)
    assert predictor.fields == ("premise", "hypothesis", "language")
    for column, value, message in (
        ("premise", None, "input=row 2: premise is missing"),
        ("premise", float("nan"), "input=row 2: premise is missing"),
        ("hypothesis", " \n", "input=row 2: hypothesis is empty"),
        ("hypothesis", "a\0b", "input=row 2: hypothesis has a NUL character"),
        ("premise", ["a"], "input=row 2: premise is a list, not a text"),
        ("language", "xx", "input: row 2: language=xx: allowed are"),
        ("premise", "word " * 5000, "the context length is"),
    ):
        bad = good.astype(object).copy()
        bad.at[1, column] = value
        with pytest.raises(OptionError) as error:
            predictor.predict(bad)
        assert message in str(error.value)
    with pytest.raises(OptionError, match=r"has no column premise; it has premises.*did you mean 'premises'"):
        predictor.predict(good.rename(columns={"premise": "premises"}))
    empty = predictor.predict(good.head(0))
    assert list(empty.columns) == ["predicted", *(f"p_{label}" for label in predictor.labels)]
    numbers = good.assign(premise=range(3))
    pd.testing.assert_frame_equal(predictor.predict(numbers), predictor.predict(numbers.astype(str)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "its whichlora.json is damaged"),
        (
            lambda text: json.dumps(json.loads(text) | {"format": 99}),
            "a later version of whichlora (format 99, here 1)",
        ),
        (lambda text: json.dumps(json.loads(text) | {"scoring": 1}), "its whichlora.json is damaged: scoring"),
        (lambda text: text.replace('"prompt_version": "nli-1"', '"prompt_version": "nli-0"'), "trained with nli-0"),
        (lambda text: text.replace('"option": "atlas-nli"', '"option": "strange:Task"'), "install its package or add"),
        (
            lambda text: text.replace('"variant": "none"', '"variant": "lora"').replace('"base"', '"adapter"', 1),
            "has no adapter_config.json, neither in it nor in a subfolder adapter",
        ),
        (None, "has no whichlora.json"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(store: Path, tiny_model: str, change: Any, message: str) -> None:
    folder = stored(plan_of(tiny_model, variant="none"), store / "model")
    path = folder / "whichlora.json"
    text = path.read_text()
    path.unlink()
    if change is not None:
        path.write_text(change(text))
    with pytest.raises(OptionError) as error:
        Predictor.load(folder)
    assert message in str(error.value)


def test_word_pairs_have_no_predictions(tiny_model: str) -> None:
    pairs = {"task": "align-words", "layers": "first:2", "train_size": 24, "validation_size": 12, "test_size": 12}
    assert saved_models.of_plan(plan_of(tiny_model, **pairs), {}) is None


def test_a_model_of_the_hub_is_not_taken_from_a_folder(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "owner" / "tiny")
    commit = "0" * 40
    named = saved_models.SavedBase(name="owner/tiny", digest=f"owner/tiny@{commit}", revision=commit, folder=None)
    with pytest.raises(OptionError, match="there is a folder of that name here"):
        find_base(named, None)
    with pytest.raises(OptionError, match="of the hub; leave out base and download it"):
        find_base(named, tiny_model)
    with pytest.raises(OptionError, match="is not the model with the digest other"):
        find_base(named.model_copy(update={"digest": "other"}), None)
    shutil.rmtree(tmp_path / "owner")
    with pytest.raises(OptionError, match="is not found here: download it"):
        find_base(named, None)
