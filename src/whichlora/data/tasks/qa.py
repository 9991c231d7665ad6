"""Base class of extractive question answering tasks, with their prompt and metrics."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from whichlora.data.tasks import prompts
from whichlora.data.tasks.base import PromptTask
from whichlora.data.tasks.items import Item, QaItem

_ARTICLES = re.compile(r"\b(a|an|the)\b")


class QaTask(PromptTask):
    """Base class of extractive QA tasks: the model generates a span of the context."""

    prompt_version = prompts.QA_VERSION
    prompt_languages = tuple(prompts.QA)
    answer_tokens = 64

    def prompt(self, item: Item) -> str:
        assert isinstance(item, QaItem)
        return prompts.QA[self.written_in(item)].text(item.context, item.question)

    def answer(self, item: Item) -> str:
        assert isinstance(item, QaItem)
        return f" {item.answers[0]}"

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, QaItem)
        return item.answers

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return SQuAD's token F1 and exact match, the maximum over accepted answers, averaged over items."""
        pairs = list(zip(predicted, gold, strict=True))
        return {
            "f1": sum(max(token_f1(p or "", g) for g in answers) for p, answers in pairs) / len(pairs),
            "exact_match": sum(max(float(normalize(p or "") == normalize(g)) for g in answers) for p, answers in pairs)
            / len(pairs),
        }


def normalize(text: str) -> str:
    """Convert to lower case, remove punctuation and English articles, and join words by single spaces.

    SQuAD's normalisation (Rajpurkar et al. 2016), extended to the punctuation of every script, so that a Hindi danda or
    an Urdu full stop does not make a correct answer wrong, and to Unicode NFC.
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(
        c for c in text.lower() if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    return " ".join(_ARTICLES.sub(" ", text).split())


def token_f1(predicted: str, gold: str) -> float:
    """Return the word-level F1 of two answers after `normalize`; 1 if both are empty."""
    p, g = normalize(predicted).split(), normalize(gold).split()
    if not p or not g:
        return float(p == g)
    shared = sum((Counter(p) & Counter(g)).values())
    return 2 * shared / (len(p) + len(g))
