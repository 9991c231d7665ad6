"""Base class of natural language inference tasks, with their prompt and metrics."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.data.tasks import prompts
from whichlora.data.tasks.base import PromptTask
from whichlora.data.tasks.items import LABELS, Item, NliItem


class NliTask(PromptTask):
    """Base class of three-way NLI tasks: the model answers with a label word."""

    labels = LABELS
    prompt_version = prompts.NLI_VERSION
    prompt_languages = tuple(prompts.NLI)

    def __init__(self, prompt_language: prompts.PromptLanguage | None = None) -> None:
        super().__init__(prompt_language)
        self.answer_tokens = 12 if self.prompt_language == "en" else 48  # enough for labels with one token per byte

    def prompt(self, item: Item) -> str:
        assert isinstance(item, NliItem)
        return prompts.NLI[self.written_in(item)].text(item.premise, item.hypothesis)

    def answer(self, item: Item) -> str:
        assert isinstance(item, NliItem)
        return f" {self.label_words(item)[self.labels.index(item.label)]}"

    def label_words(self, item: Item) -> tuple[str, ...]:
        return prompts.NLI[self.written_in(item)].labels

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, NliItem)
        return (item.label,)

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return micro-F1 (equal to accuracy, because invalid answers count as wrong) and macro-F1 over the labels."""
        return label_scores(predicted, gold, self.labels)

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the micro-F1 of shallow classifiers; see `nli_baselines`."""
        from whichlora.data.tasks.shallow_baselines import nli_baselines

        return nli_baselines([i for i in train if isinstance(i, NliItem)], [i for i in test if isinstance(i, NliItem)])


def label_scores(
    predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]], labels: Sequence[str]
) -> dict[str, float]:
    """Return micro-F1, equal to the accuracy because invalid answers count as wrong, and macro-F1 over the labels."""
    true = [answers[0] for answers in gold]
    accuracy = sum(t == p for t, p in zip(true, predicted, strict=True)) / len(true)
    return {"f1": accuracy, "macro_f1": macro_f1(true, predicted, labels)}


def macro_f1(true: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> float:
    """Return the macro-F1: the unweighted mean of F1 over `labels`, where F1 is 0 for a label that never occurs.

    Equal to scikit-learn's `f1_score(average="macro", zero_division=0)`, which takes seconds to import.
    """
    scores = []
    for label in labels:
        hits = sum(t == p == label for t, p in zip(true, predicted, strict=True))
        occurrences = sum(t == label for t in true) + sum(p == label for p in predicted)
        scores.append(2 * hits / occurrences if occurrences else 0.0)
    return sum(scores) / len(scores)
