"""Natural language inference: the items, the prompt and the scores that every NLI task shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sklearn.metrics import f1_score

from whichlora.tasks.base import Item, Task

LABELS = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True, slots=True)
class NliItem(Item):
    """A premise, a hypothesis, and the label that tells how the second follows from the first."""

    premise: str
    hypothesis: str
    label: str


class NliTask(Task):
    """Three-way NLI, answered with a label word."""

    kind = "choice"
    labels = LABELS
    prompt_version = "nli-1"
    answer_tokens = 12

    def prompt(self, item: Item) -> str:
        assert isinstance(item, NliItem)
        return (
            "Given the premise, label the hypothesis entailment, neutral or contradiction.\n"
            f"Premise: {item.premise}\nHypothesis: {item.hypothesis}\nLabel:"
        )

    def answer(self, item: Item) -> str:
        assert isinstance(item, NliItem)
        return f" {item.label}"

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, NliItem)
        return (item.label,)

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Micro-F1, equal to accuracy because an invalid answer counts as wrong, and macro-F1 over the labels."""
        true = [answers[0] for answers in gold]
        given = [p if p in self.labels else "invalid" for p in predicted]
        return {
            "f1": sum(t == p for t, p in zip(true, given, strict=True)) / len(true),
            "macro_f1": float(f1_score(true, given, labels=list(self.labels), average="macro", zero_division=0)),
        }
