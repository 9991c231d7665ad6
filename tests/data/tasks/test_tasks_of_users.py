"""Users' own tasks: files that pass `check_task`, and classes that are named as MODULE:CLASS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from declaring import TEXTS, declared
from reviews import reviews_folder

from whichlora.data.tasks import task_class
from whichlora.errors import OptionError
from whichlora.testing import check_task

CLASS = """
from whichlora.data.tasks import PromptTask, Sizes
from whichlora.data.tasks.declared import DeclaredTask
from whichlora.errors import check_choice

class Empty(PromptTask):
    name, languages, source, pooled, parallel = "empty", ("de", "tr"), "de", ("tr",), False
    prompt_version, sizes, answer_tokens = "1", Sizes(), 4
    def load(self, language, split, *, data_dir=None, difficulty="normal"):
        return ()
    def prompt(self, item): return "?"
    def answer(self, item): return " !"
    def gold(self, item): return ("!",)
    def metrics(self, predicted, gold): return {"f1": 0.0}

class Unfinished(PromptTask):
    name = "unfinished"
"""


def texts(folder: Path, **changes: Any) -> Any:
    """Declare texts in two languages without ids, which are in no way translations of each other."""
    for split, n in (("train", 30), ("test", 12)):
        for code in ("de", "tr"):
            rows = [
                {"instruction": f"{code} {split} {i}\nA: 1", "input": "x" * (i % 2), "output": f"a {i}\n\nb"}
                for i in range(n)
            ]
            (folder / f"{split}-{code}.json").write_text(json.dumps(rows), encoding="utf-8")
    prompts = {
        "de": "Befolge:\nStufe: eins\n{{ instruction }} {% if input %}{{ input }}{% endif %}\nAntwort:",
        "tr": "Yap:\n{{ instruction }} {% if input %}{{ input }}{% endif %}\nCevap:",
    }
    data = {"train": "train-{lang}.json", "test": "test-{lang}.json"}
    return declared(folder, TEXTS, languages=["de", "tr"], source="de", data=data, **{"prompt": prompts, **changes})


def test_declared_tasks_pass_the_checks(tmp_path: Path):
    check_task(task_class(reviews_folder(tmp_path)))
    check_task(texts(tmp_path))
    check_task(texts(tmp_path, answer={"until": "\n"}))


def test_a_task_may_be_trained_in_the_source_language_alone(tmp_path: Path):
    task = task_class(reviews_folder(tmp_path))
    (tmp_path / "train-tr.csv").unlink()
    with pytest.raises(AssertionError, match="train in tr: no items"):
        check_task(task)
    check_task(task, empty=["tr"])


def test_a_field_that_may_be_empty_is_named(tmp_path: Path):
    task = texts(tmp_path, prompt="{{ instruction }}\n{{ input }}")
    with pytest.raises(OptionError, match=r"If input may be empty, write \{% if input %\} \.\.\. \{% endif %\}"):
        task().load("de", "test")


def test_a_class_is_found_in_the_current_folder(tmp_path: Path):
    (tmp_path / "own_tasks.py").write_text(CLASS)
    # As the installed command, unlike `python -m`: the current folder is not in the search path.
    call = (
        "import sys; sys.path.remove(''); import whichlora.data.tasks as t; print(t.get_task('own_tasks:Empty').name)"
    )
    done = subprocess.run([sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("empty\n", "")


STORED = """
import sys
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError

if sys.argv[1:]:
    get_task(sys.argv[1])  # whose folder is now in the search path
try:
    print(get_task("strange_tasks:Empty", stored=True).name)
except OptionError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("call", "path", "found"),
    [
        (["-c", STORED], "", False),
        (["-c", STORED, "own_tasks:Empty"], "", False),
        (["stored.py"], os.pathsep, False),  # as in PYTHONPATH=$PYTHONPATH:
        (["-m", "stored"], "sub", True),
        (["-c", STORED], ".", True),
    ],
)
def test_a_stored_class_is_not_found_in_the_current_folder(tmp_path: Path, call: list[str], path: str, found: bool):
    (tmp_path / "own_tasks.py").write_text(CLASS)
    (tmp_path / "stored.py").write_text(STORED)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "strange_tasks.py").write_text(CLASS)
    (tmp_path / "strange_tasks.py").write_text(CLASS if path == "." else "raise SystemExit('executed')")
    paths = [os.environ.get("PYTHONPATH", ""), path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run([sys.executable, *call], cwd=tmp_path, env=environment, capture_output=True, text=True)
    refused = "task=strange_tasks:Empty: cannot be imported (No module named 'strange_tasks'); install its package or"
    assert done.stderr == ""
    assert done.stdout.startswith("empty" if found else refused)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("own_tasks_2:Unfinished", "lacks answer, gold, load, metrics, prompt, languages, pooled, parallel, "),
        ("own_tasks_2:DeclaredTask", "lacks name, languages, pooled, parallel, prompt_version, sizes, "),
        ("own_tasks_2:check_choice", "is not a subclass"),
        ("own_tasks_2:Missing", "has no attribute 'Missing'"),
        ("no_such_module:Empty", "No module named 'no_such_module'"),
    ],
)
def test_what_is_no_task_is_one_line(name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "own_tasks_2.py").write_text(CLASS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError) as caught:
        task_class(name)
    assert str(caught.value).startswith(f"task={name}: ")
    assert problem in str(caught.value)
