"""The checks of `whichlora.testing` for every task of the catalogue, and the items that all of them draw."""

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
from whichlora.data.tasks import TASKS, PairTask, get_task
from whichlora.data.tasks.base import SPLITS
from whichlora.testing.task_case import (
    INVALID,
    check_answers,
    check_floors,
    check_invalid_value,
    check_items,
    check_parallel,
    check_prompt_languages,
    check_splits,
)

EMPTY = {"tydiqa": ("bn", "te")}  # they have no train file
each_task = pytest.mark.parametrize("name", TASKS)
each_prompted = pytest.mark.parametrize(
    "name", [name for name, task in TASKS.items() if not issubclass(task, PairTask)]
)
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


@each_task
@each_split
def test_items_are_numbered_named_once_and_of_the_language(name, split, data):
    check_items(TASKS[name], split, data(name), empty=EMPTY.get(name, ()))


@each_task
def test_a_parallel_task_has_the_same_items_in_every_language(name, data):
    check_parallel(TASKS[name], data(name))


@each_task
def test_no_prompt_is_in_two_splits(name, data):
    check_splits(TASKS[name], data(name))


@each_task
@pytest.mark.parametrize("prompt_language", ["en", "item"])
def test_prompt_answer_and_accepted_answers_agree(name, prompt_language, data):
    check_answers(TASKS[name], prompt_language, data(name))


@each_prompted
def test_every_language_of_a_task_has_prompts(name):
    assert set(TASKS[name].languages) <= set(TASKS[name].prompt_languages)


@each_prompted
def test_prompts_in_the_language_of_the_item_differ_from_the_english_ones_outside_english(name, data):
    check_prompt_languages(TASKS[name], data(name))


@each_task
def test_shallow_methods_have_scores_from_0_to_1(name, data):
    check_floors(TASKS[name], data(name))


@each_task
@pytest.mark.parametrize(("option", "value"), INVALID.items())
def test_what_a_task_does_not_have_is_refused(name, option, value, data):
    check_invalid_value(TASKS[name], option, value, data(name))


@pytest.mark.slow
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
