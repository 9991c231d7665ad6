"""Answers that are texts of each item, as in XCOPA: their scores, and the control without the premise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from runs import PAIRS, plan_of, run_of

from whichlora.data.chat import ChatTemplate
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import Item, get_task
from whichlora.errors import OptionError
from whichlora.evaluation import inference
from whichlora.evaluation.choices import choice_scores
from whichlora.evaluation.intervals import wilson
from whichlora.evaluation.scores import Scores, score
from whichlora.evaluation.scoring_methods import ChoiceLikelihood, prompt_scoring
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.models.packing import families
from whichlora.run.summary import summary
from whichlora.tracking.logged_models import model_uri

XCOPA = get_task("xcopa")
BEGINNINGS = {
    "tr": ("Kapı açıldı", "Işık yandı", "İçeri girdim"),
    "sw": ("Mlango ulifunguka", "Taa iliwaka", "Niliingia"),
}


def xcopa_folder(folder: Path, *, swapped: bool = False) -> str:
    """Write invented items in XCOPA's layout: 12 of the pool and 14 to test; `swapped` exchanges their choices."""
    folder.mkdir(parents=True, exist_ok=True)
    for code, (opened, lit, entered) in BEGINNINGS.items():
        for split, size in (("val", 100), ("test", 14)):
            rows = []
            for i in range(size):
                choices = [f"{lit} {i} {split}.", f"{entered} {'na ' * (i % 5)}{i}."]
                label = i // 3 % 2
                if swapped:
                    choices, label = choices[::-1], 1 - label
                row = {"premise": f"{opened} {i} {split}.", "choice1": choices[0], "choice2": choices[1]}
                rows.append(row | {"question": ("cause", "effect")[i % 2], "label": label, "idx": i, "changed": False})
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{split}.{code}.jsonl").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xcopa")


def items_of(folder: Path, **options: Any) -> list[Item]:
    data = xcopa_folder(folder, **options)
    return [item for code in BEGINNINGS for item in XCOPA.load(code, "test", data_dir=data)]


def loaded(folder: str) -> tuple[Any, Encoder]:
    source = locate(folder)
    model = load_model(source, precision="fp32", quantization="none").eval()
    return model, Encoder(XCOPA, load_tokenizer(source))


def naive(model: Any, prompt: list[int], choice: list[int]) -> float:
    """Return the mean log-likelihood of a choice's tokens by one plain forward pass."""
    logits = model(input_ids=torch.tensor([prompt + choice])).logits[0].log_softmax(-1)
    return float(np.mean([logits[len(prompt) + k - 1, token].item() for k, token in enumerate(choice)]))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", ["tiny_model", "byte_model"])
@torch.inference_mode()
def test_scores_are_those_of_a_plain_forward_pass(name, packed, folder, monkeypatch, request):
    model, encoder = loaded(request.getfixturevalue(name))
    if not packed:
        monkeypatch.setattr(families, "FAMILIES", ())
    items = items_of(folder)[9:19]  # of both languages
    found = choice_scores(model, encoder, items, name="test")
    tokenizer = encoder.tokenizer
    first = next(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None)
    given, alone = [], []
    for item in items:
        texts = dict(item.fields)
        cause = texts["question"] == "cause"
        words = {"tr": ("çünkü", "bu yüzden"), "sw": ("kwa sababu", "kwa hiyo")}[item.language]
        connective = words[0] if cause else words[1]
        prompt = tokenizer(f"{texts['premise'][:-1]} {connective}").input_ids
        control = [first, *tokenizer(connective, add_special_tokens=False).input_ids]
        lower = {"Işık": "ışık", "İçeri": "içeri", "Taa": "taa", "Niliingia": "niliingia"}
        choices = []
        for choice in (texts["choice1"], texts["choice2"]):
            word, _, rest = choice.partition(" ")
            text = f"{texts['premise'][:-1]} {connective} {lower[word]} {rest}"
            choices.append(tokenizer(text).input_ids[len(prompt) :])
        given.append([naive(model, prompt, choice) for choice in choices])
        alone.append([naive(model, control, choice) for choice in choices])
    np.testing.assert_allclose(found.given, given, atol=1e-5)
    np.testing.assert_allclose(found.alone, alone, atol=1e-5)
    assert np.abs(found.given - found.alone).max() > 1e-3


def scored(tiny_model: str, items: list[Item]) -> Scores:
    model, encoder = loaded(tiny_model)
    return score(model, encoder, items, scoring=prompt_scoring(XCOPA), name="test")


def test_swapping_the_choices_flips_the_predictions_and_keeps_every_score(tiny_model, folder, tmp_path):
    scores, swapped = (scored(tiny_model, items) for items in (items_of(folder), items_of(tmp_path, swapped=True)))
    flip = {"0": "1", "1": "0"}
    assert [flip[label] for label in swapped.predicted] == scores.predicted
    assert {name: [flip[label] for label in labels] for name, labels in swapped.controls.items()} == scores.controls
    np.testing.assert_allclose(swapped.probabilities[:, ::-1], scores.probabilities, atol=1e-6)
    kept = ("f1", "accuracy", "control_f1", "adjusted_f1")
    assert {key: swapped.metrics[key] for key in kept} == {key: scores.metrics[key] for key in kept}
    assert 0 < scores.metrics["f1"] < 1


def test_neither_order_nor_batch_size_matters(tiny_model, folder, monkeypatch):
    items = items_of(folder)
    expected = scored(tiny_model, items)
    backwards = scored(tiny_model, items[::-1])
    monkeypatch.setattr(inference, "BATCH_ITEMS", 1)
    alone = scored(tiny_model, items)
    np.testing.assert_allclose(backwards.probabilities[::-1], expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(alone.probabilities, expected.probabilities, atol=1e-6)
    assert alone.controls == expected.controls


def test_predictions_and_metrics_follow_from_the_scores(tiny_model, folder):
    items = items_of(folder)
    scores = scored(tiny_model, items)
    with torch.inference_mode():
        found = choice_scores(*loaded(tiny_model), items, name="test")
    by = {"predicted": found.given, "predicted_control": found.alone, "predicted_adjusted": found.given - found.alone}
    frame = scores.frame()
    assert list(frame.columns) == ["id", "gold", "predicted", "p_0", "p_1", "predicted_control", "predicted_adjusted"]
    for column, values in by.items():
        assert list(frame[column]) == [str(best) for best in values.argmax(axis=1)]
        key = f"{column.removeprefix('predicted').removeprefix('_')}_f1".removeprefix("_")
        assert scores.metrics[key] == (frame[column] == frame["gold"]).mean()
    np.testing.assert_allclose(frame["p_0"] / frame["p_1"], np.exp(found.given[:, 0] - found.given[:, 1]), rtol=1e-5)


@torch.inference_mode()
def test_in_a_conversation_the_choice_is_the_assistants_turn(tiny_model, folder):
    model, encoder = loaded(tiny_model)
    assert XCOPA.chat_template == "none"  # which an option may override
    form = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}\n{% endfor %}"
    form += "{% if add_generation_prompt %}[assistant]{% endif %}"
    encoder.chat = ChatTemplate(encoder.tokenizer, form)
    items = items_of(folder)[::5]
    found = choice_scores(model, encoder, items, name="test")
    for asked, means in ((items, found.given), ([XCOPA.control(item) for item in items], found.alone)):
        for item, row in zip(asked, means, strict=True):
            text = f"[user]{XCOPA.prompt(item).strip()}\n[assistant]"
            prompt = encoder.tokenizer(text).input_ids
            choices = [encoder.tokenizer(text + word).input_ids[len(prompt) :] for word in XCOPA.label_words(item)]
            expected = [naive(model, prompt, choice) for choice in choices]
            np.testing.assert_allclose(row, expected, atol=1e-5)


def test_choices_are_not_generated(tiny_model, folder):
    assert isinstance(prompt_scoring(XCOPA, "likelihood"), ChoiceLikelihood)
    with pytest.raises(
        OptionError, match=r"^scoring=generate: xcopa has choices, which are compared; allowed are like"
    ):
        plan_of(tiny_model, task="xcopa", language="tr", data_dir=xcopa_folder(folder), scoring="generate")


def test_a_run_that_does_not_train_it_scores_it_before_and_after(store, tiny_model, folder):
    options = PAIRS | {"language": "tr", "retention": "xcopa", "data_dir": xcopa_folder(folder)}
    plan = plan_of(tiny_model, **options)
    result = run_of(plan)
    assert [name for name in plan.tests if name.startswith("retention")] == ["retention/tl"]
    place = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="predictions"))
    table = pd.read_parquet(place / "retention" / "tl.parquet")
    for key, column in (("", ""), ("control_", "_control"), ("adjusted_", "_adjusted")):
        share = (table[f"predicted{column}"] == table["gold"]).mean()
        assert result.metrics[f"test/retention/tl/{key}f1"] == share
        ends = [result.metrics[f"test/retention/tl/{key}f1_{end}"] for end in ("low", "high")]
        assert ends == pytest.approx(wilson(share, len(table)))
        assert f"base/retention/tl/{key}f1" in result.metrics
    described = mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    for name in ("F1 of the control", "F1 adjusted for the control"):
        assert name in described
        assert name in summary(plan, result)
    assert result.metrics["gain/retention/tl"] == pytest.approx(
        result.metrics["test/retention/tl/f1"] - result.metrics["base/retention/tl/f1"]
    )


@pytest.mark.slow
def test_it_can_be_trained_and_predicted_too(store, tiny_model, folder):
    options = {"task": "xcopa", "language": "tr,sw", "train_size": 24, "validation_size": 8}
    options |= {"data_dir": xcopa_folder(folder), "test_size": 12}
    result = run_of(plan_of(tiny_model, **options))
    assert {
        "test/tl/control_f1",
        "test/tl/tr/adjusted_f1",
        "test/tl/sw/f1",
        "floor/tl/majority",
    } <= result.metrics.keys()
    halves = [result.metrics[f"test/tl/{code}/control_f1"] for code in ("tr", "sw")]
    assert result.metrics["test/tl/control_f1"] == pytest.approx(np.mean(halves))
    model = mlflow.pyfunc.load_model(model_uri(mlflow.MlflowClient(), result.run_id))
    columns = ("premise", "choice1", "choice2", "question")
    rows = [dict(item.fields) | {"language": "tr"} for item in XCOPA.load("tr", "test", data_dir=options["data_dir"])]
    found = model.predict(pd.DataFrame(rows)[[*columns, "language"]])
    place = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="predictions/tl.parquet")
    table = pd.read_parquet(place).set_index("id")["predicted"]
    own = {name.removeprefix("tr/"): label for name, label in table.items() if name.startswith("tr/")}
    assert {name: found["predicted"][int(name)] for name in own} == own
