"""Probes of runs with a user's own task: other source languages, and a declaration that is gone or was changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import folders
import pytest
from probes import probed, table
from runs import plan_of, run_of
from transformers import AutoTokenizer

from whichlora.probing.choices import LanguageChoices
from whichlora.probing.language.classes import ENGLISH, OTHER, TARGET, LanguageClassifier


@pytest.mark.parametrize("source", ["de", None])
def test_a_run_of_a_declared_task_is_probed(store: Path, tiny_model: str, source: str | None) -> None:
    languages = ("de", "tr", "az") if source else ("tr", "az")
    task = folders.reviews_task(store / "data", *languages, **({"source": source} if source else {}))
    result = run_of(plan_of(tiny_model, task=task, language="tr,az"))
    run = probed("--run_id", result.run_id, "--agreement", "0")
    assert run.data.params["source_language"] == (source or "none")
    assert run.data.params["language"] == "az+tr"
    shares = table(run).query("layer == -1 and measure == 'sequence/english'")["value"]
    assert (shares == 0).all()  # the texts are in the target languages


@pytest.mark.parametrize(("source", "expected"), [("de", ENGLISH), ("de-AT", ENGLISH), ("en", OTHER), (None, OTHER)])
def test_the_source_language_has_the_first_class(tiny_model: str, source: str | None, expected: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    classifier = LanguageClassifier(LanguageChoices(), tokenizer, source=source)
    text = "Das Gerät ist gut und der Versand war leider sehr schlecht."
    assert classifier.classify_text(text, "tr") == expected
    if expected == OTHER:
        assert classifier.classify_text(text, "de_Latn") == TARGET


@pytest.mark.slow
def test_a_run_is_probed_with_its_own_declaration(store: Path, tiny_model: str) -> None:
    task = folders.reviews_task(store / "data", "de", "tr", source="de")
    run_id = run_of(plan_of(tiny_model, task=task, language="tr")).run_id
    text = Path(task).read_text()
    Path(task).write_text(text.replace("Rate the review", "Judge the review"))
    run = probed(
        "--run_id", run_id, "--agreement", "0"
    )  # the text that the run has logged, and the data beside the file
    Path(task).unlink()
    assert probed("--run_id", run_id, "--agreement", "0").info.run_id == run.info.run_id
    shutil.move(store / "data", store / "elsewhere")
    command = [sys.executable, "-m", "whichlora.probing", "--run_id", run_id, "--agreement", "0"]
    process = subprocess.run(command, capture_output=True, text=True)  # this process has the items in its cache
    assert process.returncode == 2
    assert process.stderr.strip().endswith(
        f"data_dir=auto: must be the folder with the data of reviews, which was beside {task}"
    )
    given = probed("--run_id", run_id, "--agreement", "0", "--data_dir", str(store / "elsewhere"))
    assert given.info.run_id == run.info.run_id
    assert probed("--run_id", run_id, "--kind", "weights").info.status == "FINISHED"  # reads no items


OWN = """
from whichlora.data.tasks import PromptTask, Sizes
from whichlora.data.tasks.items import FieldsItem

class Texts(PromptTask):
    name, languages, source, pooled, parallel = "texts", ("de",), None, ("de",), False
    prompt_version, sizes, answer_tokens = "1", Sizes(train=4, validation=2, test=3), 4
    def load(self, language, split, *, data_dir=None, difficulty="normal"):
        texts = [f"{split} {i}" for i in range(6)]
        return tuple(FieldsItem(i, t, language, "", fields=(("text", t),), answers=("1",)) for i, t in enumerate(texts))
    def prompt(self, item): return f"{dict(item.fields)['text']} ="
    def answer(self, item): return " 1"
    def gold(self, item): return ("1",)
    def metrics(self, predicted, gold): return {"f1": 0.0}
"""


@pytest.mark.slow
def test_a_class_that_a_run_names_is_not_imported_from_the_current_folder(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "own").mkdir()
    (store / "own" / "texts_to_probe.py").write_text(OWN)
    monkeypatch.syspath_prepend(store / "own")
    sizes = {"train_size": 4, "validation_size": 2, "test_size": 3}
    plan = plan_of(tiny_model, task="texts_to_probe:Texts", language="de", variant="none", **sizes)
    run_id = run_of(plan).run_id
    Path("texts_to_probe.py").write_text("raise SystemExit('executed')")
    process = subprocess.run(
        [sys.executable, "-m", "whichlora.probing", "--run_id", run_id], capture_output=True, text=True
    )
    assert process.returncode == 2
    assert "task=texts_to_probe:Texts: is the task of the run and cannot be imported" in process.stderr
