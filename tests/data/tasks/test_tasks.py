"""Common tests of all tasks: items load, and prompts, answers and accepted answers agree in every language."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import folders
import pytest
from drawing import draw_all

from whichlora.data.mixture import texts_digest
from whichlora.data.tasks import PROMPTED, TASKS, PairTask, Task, get_task
from whichlora.data.tasks.base import SPLITS
from whichlora.data.tasks.qa import QaTask
from whichlora.errors import OptionError

FIRST = 60
EMPTY = {("tydiqa", "bn"), ("tydiqa", "te"), ("align-words", "en")}  # no train file; pairs are in both languages
each_task = pytest.mark.parametrize("name", TASKS)
each_prompted = pytest.mark.parametrize("name", PROMPTED)
each_split = pytest.mark.parametrize("split", SPLITS)


@pytest.fixture(scope="module", autouse=True)
def without_garbage_collection():
    """Disable garbage collection, which would scan the items of the packaged tasks repeatedly."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a function from a task's name to its data folder, None for a packaged task."""
    folder_of = {
        "xnli": folders.xnli_folder(tmp_path_factory.mktemp("xnli")),
        "tydiqa": folders.tydiqa_folder(tmp_path_factory.mktemp("tydiqa")),
    }
    return folder_of.get


def load(task: Task, language, split, data):
    return task.load(language, split, data_dir=data(task.name))


@each_task
@each_split
def test_items_are_numbered_named_once_and_of_the_language(name, split, data):
    task = get_task(name)
    for language in task.languages:
        items = load(task, language, split, data)
        assert items or (name, language) in EMPTY
        assert [item.index for item in items] == list(range(len(items)))
        assert len({item.id for item in items}) == len(items)
        assert {item.language for item in items} <= {language}
        assert len({item.stratum for item in items}) < len(items) or not items


@each_task
def test_a_parallel_task_has_the_same_items_in_every_language(name, data):
    task = get_task(name)
    for split in SPLITS:
        kept = [load(task, language, split, data) for language in task.languages]
        same = {tuple((item.id, item.stratum) for item in items) for items in kept}
        assert (len(same) == 1) == task.parallel
        if task.parallel and task.labels:
            assert len({tuple(task.gold(item) for item in items) for items in kept}) == 1


@each_task
def test_no_prompt_is_in_two_splits(name, data):
    task = get_task(name)
    for language in ("en", "sw", task.languages[-1]):
        sets = [{task.prompt(item) for item in load(task, language, split, data)} for split in SPLITS]
        assert len(set.union(*sets)) == sum(map(len, sets))


@each_task
@pytest.mark.parametrize("prompt_language", ["en", "item"])
def test_prompt_answer_and_accepted_answers_agree(name, prompt_language, data):
    task = get_task(name, prompt_language)
    for language in task.languages:
        items = load(task, language, "test", data)[:FIRST]
        for item in items:
            prompt, answer = task.prompt(item), task.answer(item)
            assert prompt.endswith(":") or isinstance(task, PairTask)
            assert answer[0] == " "
            assert answer == f" {answer.strip()}"
            if task.labels:
                words = task.label_words(item)
                assert task.gold(item) == (task.labels[words.index(answer[1:])],)
                assert all(word in prompt.partition("\n")[0] for word in words)
                continue
            assert answer[1:] == task.gold(item)[0]
            if isinstance(task, QaTask):
                assert item.context[item.answer_start :].startswith(answer[1:])
                assert all(accepted in prompt for accepted in task.gold(item))
        gold = [task.gold(item) for item in items]
        if not gold:
            continue
        assert task.metrics([answers[-1] for answers in gold], gold)["f1"] == 1
        assert task.metrics([None] * len(gold), gold)["f1"] == 0


@each_prompted
def test_prompts_in_the_language_of_the_item_differ_from_the_english_ones_outside_english(name, data):
    english, own = get_task(name), get_task(name, "item")
    for language in english.languages:
        for item in load(english, language, "test", data)[:5]:
            assert (own.prompt(item) == english.prompt(item)) == (language == "en")
            texts = english.prompt(item).split("\n")[1:-1]
            assert all(text.partition(": ")[2] in own.prompt(item) for text in texts)
            assert own.gold(item) == english.gold(item)


@each_task
def test_shallow_methods_have_scores_from_0_to_1(name, data):
    task = get_task(name)
    floors = task.floors(load(task, "sw", "train", data)[:FIRST], load(task, "sw", "test", data)[:FIRST])
    assert all(0 <= floor <= 1 for floor in floors.values())
    assert ({"majority", "hypothesis_only", "overlap"} == floors.keys()) == bool(task.labels)


@each_task
@pytest.mark.parametrize(("option", "value"), [("language", "xx"), ("split", "dev"), ("difficulty", "easy")])
def test_what_a_task_does_not_have_is_refused(name, option, value, data):
    given = {"language": "en", "split": "test", "difficulty": "normal"} | {option: value}
    with pytest.raises(OptionError, match=f"^{option}={value}: allowed are"):
        get_task(name).load(**given, data_dir=data(name))


def test_another_process_with_another_hash_seed_draws_the_same(data):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_tasks as t\n"
        "print(*t.digests(dict(pair.split('=') for pair in sys.argv[2:]).get))"
    )
    pairs = [f"{name}={data(name)}" for name in TASKS if data(name)]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *pairs]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == digests(data)
    assert len(set(digests(data))) == len(TASKS)


def digests(data) -> list[str]:
    """Return a digest of the items that each task draws."""
    sizes = {"train_size": 30, "validation_size": 6, "test_size": 6, "tl_ratio": 0.3, "seed": 3}
    found = []
    for name in TASKS:
        task = get_task(name)
        paired = {"tl_ratio": 1, "select_on": "control"} if isinstance(task, PairTask) else {}
        drawn = draw_all(task, language="sw", difficulty="normal", data_dir=data(name), **sizes | paired)
        last = list(drawn.test)[-1]
        found.append(texts_digest(task, [*drawn.train, *drawn.validation[last], *drawn.test[last]]))
    return found
