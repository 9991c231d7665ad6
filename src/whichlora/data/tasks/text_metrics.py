"""Metrics of generated texts, from 0 to 1: chrF by sacrebleu and ROUGE-L by rouge-score."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from itertools import zip_longest

_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Beginnings of the Unicode names of letters of scripts that do not separate words by spaces."""


def chrf(predicted: Sequence[str], gold: Sequence[tuple[str, ...]]) -> float:
    """Return the chrF2 of a corpus (Popović 2015), with the best reference of each text."""
    from sacrebleu.metrics import CHRF

    references = [list(stream) for stream in zip_longest(*gold)]
    return float(CHRF().corpus_score(list(predicted), references).score) / 100


def rouge_l(predicted: Sequence[str], gold: Sequence[tuple[str, ...]]) -> float:
    """Return the mean over texts of ROUGE-L's F-measure (Lin 2004), with the best reference of each text."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    pairs = zip(predicted, gold, strict=True)
    scores = [scorer.score_multi(answers, text)["rougeL"].fmeasure for text, answers in pairs]
    return float(sum(scores) / len(scores))


_Metric = Callable[[Sequence[str], Sequence[tuple[str, ...]]], float]
METRICS: dict[str, tuple[_Metric, str]] = {"chrf": (chrf, "sacrebleu"), "rouge_l": (rouge_l, "rouge-score")}
"""The function of each metric, and the package that computes it."""


def versions(metrics: Collection[str]) -> str:
    """Return the packages that compute these metrics with their versions, which are part of a result's identity."""
    packages = [package for name, (_, package) in METRICS.items() if name in metrics]
    return " ".join(f"{package}-{version(package)}" for package in packages)


class _Words:
    """A tokenizer for rouge-score, whose own one keeps only Latin letters and digits."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def words(text: str) -> list[str]:
    """Return the words of a text in any script, in lower case and NFC.

    A letter with its marks is a word of its own in scripts that do not separate words by spaces.
    """
    found: list[str] = []
    previous = ""
    for character in unicodedata.normalize("NFC", text).lower():
        kind = _kind(character)
        if previous and (kind == "mark" or (kind == previous == "letter")):
            found[-1] += character
        elif kind in ("letter", "alone"):
            found.append(character)
        previous = previous if kind == "mark" else kind
    return found


@functools.lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Return whether a character is a `letter`, a letter that is a word `alone`, a `mark`, or none of these ("")."""
    category = unicodedata.category(character)
    if category[0] == "M" or character in "\u200c\u200d":  # zero-width (non-)joiners are within words
        return "mark"
    if category[0] not in "LN":
        return ""
    return "alone" if unicodedata.name(character, "").startswith(_UNSPACED) else "letter"
