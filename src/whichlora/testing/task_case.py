"""Conformance checks for tasks: data loads, and prompts, answers and accepted answers agree in every language.

`check_task` runs all checks. Each takes the task's class, and the folder with its data if the task needs one, and
raises `AssertionError` if the task fails.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from whichlora.data.tasks import Item, PairTask, Split, Task
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS
from whichlora.data.tasks.items import QaItem
from whichlora.data.tasks.nli import NliTask
from whichlora.data.tasks.prompts import PROMPT_LANGUAGES, PromptLanguage
from whichlora.data.tasks.qa import QaTask
from whichlora.errors import OptionError

FIRST = 60
"""Number of items per language whose prompts and answers are checked."""
INVALID = {"language": "xx", "split": "dev", "difficulty": "unknown"}
"""Values that no task has."""
SHALLOW_NLI = {"majority", "hypothesis_only", "overlap"}
"""Names of the shallow baselines (floors) of every NLI task."""


def check_task(task: type[Task], data_dir: str | Path | None = None, *, empty: Collection[str] = ()) -> None:
    """Run all checks of this module on a task; `empty` are the languages that may have no items in a split."""
    folder = None if data_dir is None else str(data_dir)
    for split in SPLITS:
        check_items(task, split, folder, empty=empty)
    check_parallel(task, folder)
    check_splits(task, folder)
    for prompt_language in PROMPT_LANGUAGES:
        check_answers(task, prompt_language, folder)
    if not issubclass(task, PairTask):
        check_prompt_languages(task, folder)
    check_floors(task, folder)
    for option, value in INVALID.items():
        check_invalid_value(task, option, value, folder)


def check_items(task: type[Task], split: Split, data_dir: str | None = None, *, empty: Collection[str] = ()) -> None:
    """Check that the items of a split are numbered from 0, have unique ids, and are in the requested language.

    `empty` are the languages that may have no items. English has none in a task of word pairs, whose items are in two
    languages.
    """
    for language in task.languages:
        items = task().load(language, split, data_dir=data_dir)
        where = f"{task.name}, {split} in {language}"
        may_be_empty = language in empty or (issubclass(task, PairTask) and language == SOURCE_LANGUAGE)
        assert items or may_be_empty, f"{where}: no items"
        assert [item.index for item in items] == list(range(len(items))), f"{where}: indices are not 0, 1, 2, ..."
        assert len({item.id for item in items}) == len(items), f"{where}: two items have the same id"
        languages = {item.language for item in items}
        assert languages <= {language}, f"{where}: items have the languages {', '.join(sorted(languages))}"
        n_strata = len({item.stratum for item in items})
        assert n_strata < len(items) or not items, f"{where}: every item has a different stratum"


def check_parallel(task: type[Task], data_dir: str | None = None) -> None:
    """Check that all languages have the same ids, strata and labels if the task is declared parallel, and only then."""
    for split in SPLITS if len(task.languages) > 1 else ():
        items_by_language = [task().load(language, split, data_dir=data_dir) for language in task.languages]
        distinct = {tuple((item.id, item.stratum) for item in items) for items in items_by_language}
        same_by_chance = not task.labels and not task.parallel  # numbers of rows may be the ids, without strata
        assert (len(distinct) == 1) == task.parallel or same_by_chance, (
            f"{task.name}, {split}: parallel is {task.parallel}, but ids and strata are "
            f"{'the same' if len(distinct) == 1 else 'not the same'} in every language"
        )
        if task.parallel and task.labels:
            labels = {tuple(task().gold(item) for item in items) for items in items_by_language}
            assert len(labels) == 1, f"{task.name}, {split}: an item has different labels in two languages"


def check_splits(task: type[Task], data_dir: str | None = None) -> None:
    """Check that no prompt is in two splits of a language."""
    for language in task.languages:
        prompts = [
            {task().prompt(item) for item in task().load(language, split, data_dir=data_dir)} for split in SPLITS
        ]
        n_shared = sum(map(len, prompts)) - len(set.union(*prompts))
        assert not n_shared, f"{task.name} in {language}: {n_shared} prompts are in two splits"


def check_answers(task: type[Task], prompt_language: PromptLanguage = "en", data_dir: str | None = None) -> None:
    """Check the form of prompts and answers, that answers are accepted answers, and that these get the best scores.

    With `prompt_language` "item", languages without prompts are skipped.
    """
    instance = task(prompt_language)
    for language in _with_prompts(task, prompt_language):
        items = instance.load(language, "test", data_dir=data_dir)[:FIRST]
        for item in items:
            _check_answer(instance, item)
        gold = [instance.gold(item) for item in items]
        if gold:
            where = f"{task.name} in {language}"
            right = instance.metrics([answers[-1] for answers in gold], gold)
            wrong = instance.metrics([None] * len(gold), gold)
            assert all(0 <= value <= 1 for value in (right | wrong).values()), f"{where}: a metric is not from 0 to 1"
            assert right["f1"] == 1, f"{where}: accepted answers score {right['f1']}, not 1"
            assert wrong["f1"] == 0, f"{where}: no answers score {wrong['f1']}, not 0"


def _check_answer(task: Task, item: Item) -> None:
    prompt, answer, gold = task.prompt(item), task.answer(item), task.gold(item)
    where = f"{task.name}, item {item.id} in {item.language}"
    assert prompt == prompt.rstrip(), f"{where}: the prompt ends with a space"
    assert prompt.endswith(":") or not isinstance(task, NliTask | QaTask), f"{where}: the prompt ends without a colon"
    assert answer == f" {answer.strip()}", f"{where}: the answer {answer!r} is not one space and a text"
    if task.labels:
        words = task.label_words(item)
        assert answer[1:] in words, f"{where}: the answer {answer!r} is not one of the label words"
        assert gold == (task.labels[words.index(answer[1:])],), (
            f"{where}: the answer {answer!r} is not the label {gold}"
        )
        # A declared prompt may ask for "1 to 5" and be answered by other words: that is the choice of its author.
        missing = [word for word in words if word not in prompt.partition("\n")[0]]
        assert not (missing and isinstance(task, NliTask)), (
            f"{where}: the prompt does not name the label {missing[0]!r}"
        )
        return
    accepted = " ".join(gold[0].split()) if task.until == "\n" else gold[0]  # such an answer is on one line
    assert answer[1:] in (gold[0], accepted), f"{where}: the answer {answer!r} is not the first accepted answer"
    if isinstance(task, QaTask):
        assert isinstance(item, QaItem)
        span = item.context[item.answer_start :]
        assert span.startswith(answer[1:]), f"{where}: the answer is not in the context at answer_start"
        assert all(accepted in prompt for accepted in gold), f"{where}: an accepted answer is not in the prompt"


def check_prompt_languages(task: type[Task], data_dir: str | None = None) -> None:
    """Check that prompts in the item's language and in the source's differ only in the instruction and the labels."""
    english, local = task("en"), task("item")
    for language in _with_prompts(task, "item"):
        for item in english.load(language, "test", data_dir=data_dir)[:5]:
            where = f"{task.name}, item {item.id} in {language}"
            same = local.prompt(item) == english.prompt(item)
            source = task.source or task.prompt_languages[0]
            assert same == (language == source or task.source is None), f"{where}: both prompts are the same"
            texts = [text for text in english.texts(item).values() if text in english.prompt(item)]
            assert all(text in local.prompt(item) for text in texts), f"{where}: the prompts have different texts"
            assert local.gold(item) == english.gold(item), f"{where}: the accepted answers depend on the prompt"


def check_floors(task: type[Task], data_dir: str | None = None) -> None:
    """Check that shallow baselines score from 0 to 1 in the first target language that has training items.

    If none has, they are those of the first target language after training in the source language.
    """
    instance = task()
    targets = [language for language in task.languages if language != task.source]
    loaded = {
        language: instance.load(language, "train", data_dir=data_dir)[:FIRST]
        for language in [*targets, *([task.source] if task.source else [])]
    }
    language = next((language for language, items in loaded.items() if items), "")
    assert language, f"{task.name}: no language has training items"
    train, tested = loaded[language], language if language in targets else targets[0]
    test = instance.load(tested, "test", data_dir=data_dir)[:FIRST]
    scores = instance.shallow_baselines(train, test)
    wrong = {name: value for name, value in scores.items() if not 0 <= value <= 1}
    assert scores, f"{task.name}: has no shallow baselines"
    assert not wrong, f"{task.name}: shallow baselines are not from 0 to 1: {wrong}"
    has_nli_floors = scores.keys() == SHALLOW_NLI
    assert has_nli_floors == issubclass(task, NliTask), f"{task.name}: unexpected shallow baselines {sorted(scores)}"


def check_invalid_value(task: type[Task], option: str, value: str, data_dir: str | None = None) -> None:
    """Check that `load` rejects an invalid value of an option with an `OptionError` that lists the allowed values."""
    arguments = {"language": task.languages[0], "split": "test", "difficulty": task.difficulties[0]} | {option: value}
    language, split, difficulty = arguments["language"], arguments["split"], arguments["difficulty"]
    message = None
    try:
        task().load(language, split, data_dir=data_dir, difficulty=difficulty)  # type: ignore[arg-type]
    except OptionError as error:
        message = str(error)
    assert message is not None, f"{task.name} accepts {option}={value}"
    begin = f"{option}={value}: allowed are"
    assert message.startswith(begin), f"{task.name}: the error must begin with {begin!r}, but is {message}"


def _with_prompts(task: type[Task], prompt_language: PromptLanguage) -> list[str]:
    """Return the languages that have prompts in `prompt_language`; word pairs need none."""
    return [
        language
        for language in task.languages
        if prompt_language == "en" or language in task.prompt_languages or issubclass(task, PairTask)
    ]
