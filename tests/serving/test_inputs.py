"""Columns of declared tasks and of tasks in Python: optional texts, conversations, items of another kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from runs import plan_of

from whichlora.data.tasks.items import Item, named_texts
from whichlora.errors import OptionError
from whichlora.evaluation.scores import score
from whichlora.models.loading import load_model
from whichlora.serving import saved as saved_models
from whichlora.serving.predictor import Predictor

SIZES = {"train_size": 4, "validation_size": 2, "test_size": 6}
OWN_ITEMS = """
from dataclasses import dataclass
from whichlora.data.tasks import Item, PromptTask, Sizes
from whichlora.data.tasks.items import FieldsItem

@dataclass(frozen=True)
class Sum(Item):
    left: int

class Base(PromptTask):
    languages, source, pooled, parallel = ("de",), None, ("de",), False
    prompt_version, sizes, answer_tokens = "1", Sizes(train=4, validation=2, test=3), 4
    def answer(self, item): return " 1"
    def gold(self, item): return ("1",)
    def metrics(self, predicted, gold): return {"f1": 0.0}

class Sums(Base):
    name = "sums"
    def load(self, language, split, *, data_dir=None, difficulty="normal"):
        return tuple(Sum(i, str(i), language, "", left=i) for i in range(9))
    def prompt(self, item): return f"{item.left} + 1 ="

class Texts(Base):
    name = "texts"
    def load(self, language, split, *, data_dir=None, difficulty="normal"):
        return tuple(FieldsItem(i, str(i), language, "", fields=(("left", str(i)),), answers=("1",)) for i in range(9))
    def prompt(self, item): return f"{dict(item.fields)['left']} + 1 ="
"""


def task_file(folder: Path, rows: list[dict[str, Any]], **declaration: Any) -> str:
    """Write a task of texts in German and Turkish, whose rows are the same in all splits."""
    folder.mkdir()
    for name in ("train-de", "train-tr", "test-de", "test-tr"):
        (folder / f"{name}.json").write_text(json.dumps([{**row, "id": f"{name}-{i}"} for i, row in enumerate(rows)]))
    data = {"train": "train-{lang}.json", "test": "test-{lang}.json"}
    values = {"task": "texts", "kind": "text", "languages": ["de", "tr"], "source": "de", "data": data, **declaration}
    (folder / "task.yaml").write_text(yaml.safe_dump(values | {"answer": {"tokens": 4}}))
    return str(folder / "task.yaml")


def predictor_of(plan: Any, folder: Path) -> Predictor:
    saved = saved_models.of_plan(plan, {})
    assert saved is not None
    folder.mkdir()
    saved.write(folder)
    return Predictor.load(folder)


def expected(plan: Any, items: list[Item]) -> list[str | None]:
    """Return what a run of the base model predicts."""
    model = load_model(plan.source, precision="fp32", quantization="none")
    return score(model, plan.encoder(), items, scoring=plan.scoring, name="test").predicted


@pytest.mark.filterwarnings("ignore:texts in")
def test_optional_texts_may_be_missing_and_prompts_depend_on_the_language(tmp_path: Path, tiny_model: str) -> None:
    prompt = "{{ instruction }}{% if input %} ({{ input }}){% endif %}\n"
    task = task_file(
        tmp_path / "data",
        [{"instruction": f"do {i}", "input": "x" * (i % 2), "output": f"done {i}"} for i in range(40)],
        fields={"id": "id", "instruction": "instruction", "input": "input", "output": "output"},
        prompt={"de": f"{prompt}Antwort:", "tr": f"{prompt}Cevap:"},
    )
    plan = plan_of(tiny_model, task=task, language="tr", variant="none", **SIZES)
    predictor = predictor_of(plan, tmp_path / "model")
    assert predictor.fields == ("instruction", "language")
    assert predictor.optional_fields == ("input",)
    items = list(plan.tests["tl"].items)
    frame = pd.DataFrame([{**named_texts(item), "language": item.language} for item in items])
    found = predictor.predict(frame.replace("", None))
    assert list(found.columns) == ["predicted"]
    assert found["predicted"].tolist() == expected(plan, items)
    pd.testing.assert_series_equal(
        predictor.predict(frame[frame["input"] == ""].drop(columns="input"))["predicted"],
        found["predicted"][frame["input"] == ""],
    )


@pytest.mark.filterwarnings("ignore:texts in")
def test_conversations_are_lists_of_turns_or_json(tmp_path: Path, tiny_model: str) -> None:
    turns = [[{"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": f"Ho {i}"}] for i in range(40)]
    rows = [{"messages": conversation} for conversation in turns]
    task = task_file(tmp_path / "data", rows, fields={"id": "id", "messages": "messages"})
    plan = plan_of(tiny_model, task=task, language="tr", variant="none", **SIZES)
    predictor = predictor_of(plan, tmp_path / "model")
    assert predictor.fields == ("messages",)
    items = list(plan.tests["tl"].items)
    texts = [named_texts(item)["messages"] for item in items]
    wanted = expected(plan, items)
    assert predictor.predict(pd.DataFrame({"messages": texts}))["predicted"].tolist() == wanted
    assert predictor.predict(pd.DataFrame({"messages": list(map(json.loads, texts))}))["predicted"].tolist() == wanted
    for bad, message in (
        (turns[0], "ends with a turn of the assistant"),
        ("Hi", "is not a list of turns"),
        (None, "is"),
    ):
        with pytest.raises(OptionError, match=rf"input=row 1: messages {message}"):
            predictor.predict(pd.DataFrame({"messages": [bad]}))


def test_items_of_a_class_of_their_own_have_no_model(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_items_of_a_user.py").write_text(OWN_ITEMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    options = {"language": "de", "variant": "none", **SIZES, "test_size": 3}
    assert saved_models.of_plan(plan_of(tiny_model, task="own_items_of_a_user:Sums", **options), {}) is None
    plan = plan_of(tiny_model, task="own_items_of_a_user:Texts", **options)
    predictor = predictor_of(plan, tmp_path / "model")
    assert predictor.fields == ("left",)
    items = list(plan.tests["tl"].items)
    assert predictor.predict(pd.DataFrame(map(named_texts, items)))["predicted"].tolist() == expected(plan, items)
