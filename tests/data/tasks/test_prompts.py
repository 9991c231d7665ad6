"""Prompts in every language: label words are distinguishable, and the English texts are pinned."""

from __future__ import annotations

import pytest

from whichlora.data.tasks import TASKS, PromptTask, get_task
from whichlora.data.tasks.items import LABELS, NliItem, QaItem
from whichlora.data.tasks.prompts import NLI, QA
from whichlora.errors import OptionError

NLI_ITEM = NliItem(0, "0", "de", "x", "Ein Mann {schläft}.", "Er ruht.", "contradiction")
QA_ITEM = QaItem(0, "0", "fi", "x", "Turku on {Suomessa}.", "Missä?", ("Suomessa",), 10)
NLI_LANGUAGES = sorted(NLI)


def test_every_language_of_every_task_has_prompts():
    assert (
        NLI.keys()
        == QA.keys()
        == {code for task in TASKS.values() if issubclass(task, PromptTask) for code in task.languages}
    )


def test_english_prompts_of_version_1():
    assert get_task("xnli").prompt(NLI_ITEM) == (
        "Given the premise, label the hypothesis entailment, neutral or contradiction.\n"
        "Premise: Ein Mann {schläft}.\nHypothesis: Er ruht.\nLabel:"
    )
    assert get_task("tydiqa").prompt(QA_ITEM) == (
        "Answer the question with words from the passage.\nPassage: Turku on {Suomessa}.\nQuestion: Missä?\nAnswer:"
    )
    assert get_task("xnli").answer(NLI_ITEM) == " contradiction"
    assert (get_task("xnli").prompt_version, get_task("tydiqa").prompt_version) == ("nli-1", "qa-1")


def test_prompts_in_the_language_of_the_item():
    task = get_task("xnli", "item")
    assert task.prompt(NLI_ITEM) == (
        "Ordne die Hypothese anhand der Prämisse ein: Folgerung, neutral oder Widerspruch.\n"
        "Prämisse: Ein Mann {schläft}.\nHypothese: Er ruht.\nEinordnung:"
    )
    assert (task.answer(NLI_ITEM), task.gold(NLI_ITEM)) == (" Widerspruch", ("contradiction",))
    assert get_task("tydiqa", "item").prompt(QA_ITEM).endswith("Kysymys: Missä?\nVastaus:")


@pytest.mark.parametrize("language", NLI_LANGUAGES)
def test_no_label_begins_another_and_all_can_be_generated(language):
    words = NLI[language].labels
    assert len(set(words)) == len(LABELS)
    assert not any(a is not b and a.lower().startswith(b.lower()) for a in words for b in words)
    assert all(word == word.strip() and "\n" not in word for word in words)
    longest = max(len(f" {word}".encode()) for word in words)
    assert longest <= get_task("xnli", "item").answer_tokens
    assert NLI[language].instruction.count("{}") == 3
    assert "{" not in QA[language].instruction


def test_prompts_of_all_languages_differ():
    for prompts in (NLI, QA):
        assert len({prompt.instruction for prompt in prompts.values()}) == len(prompts)
        assert all(len(set(prompt.names)) == 3 for prompt in prompts.values())


def test_a_language_without_a_prompt_is_refused_by_name():
    class Wider(TASKS["xnli"]):
        languages = ("en", "sw", "xx")

    Wider("en").check_prompts(["en", "xx"])
    Wider("item").check_prompts(["en", "sw"])
    with pytest.raises(OptionError, match=r"^prompt_language=item: xnli has no prompt in xx; allowed are en, auto$"):
        Wider("item").check_prompts(["en", "xx"])
