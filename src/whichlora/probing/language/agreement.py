"""Measures the agreement of the two detectors on a sample of decoded tokens and texts, by Cohen's kappa."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from whichlora.data.detectors import DETECTORS
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.probing.language.classes import LanguageClassifier

if TYPE_CHECKING:
    from whichlora.probing.choices import LanguageChoices
    from whichlora.probing.partial_results import Arrays, PartialResults


class Sample:
    """A reproducible sample of about `count` tokens and `count` texts from all items and layers."""

    def __init__(self, count: int, n_items: int, seed: int) -> None:
        self._per_item = math.ceil(count / n_items)
        self._stride = math.ceil(n_items / count) if count else 0
        self._seed = seed
        self._drawn: list[tuple[int, str, str]] = []

    def draw(self, index: int, target: str, tokens: np.ndarray[Any, Any], texts: Sequence[str]) -> None:
        """Draw from the tokens of item `index`, (layers, positions, k), and from the texts of its layers."""
        if not self._stride or index % self._stride or not tokens.size:
            return
        random = np.random.default_rng([self._seed, index])
        for _ in range(self._per_item):
            layer, position, text = random.integers([*tokens.shape[:2], len(texts)])
            self._drawn.append((int(tokens[layer, position, 0]), target, texts[text]))

    def arrays(self) -> Arrays:
        """Return the sample as arrays for `PartialResults`."""
        return {
            "sampled_tokens": np.array([token for token, _, _ in self._drawn], dtype=int),
            "sampled_targets": np.array([target for _, target, _ in self._drawn], dtype=str),
            "sampled_texts": np.array([text for _, _, text in self._drawn], dtype=str),
        }


def second_classifier(
    choices: LanguageChoices, tokenizer: Any, source: str | None = SOURCE_LANGUAGE
) -> LanguageClassifier | None:
    """Return a classifier with the other detector, or None if `choices.agreement` is 0.

    Raises:
        OptionError: the other detector does not know one of the candidates.
    """
    if not choices.agreement:
        return None
    (other,) = (name for name in DETECTORS if name != choices.detector)
    return LanguageClassifier(choices, tokenizer, detector=other, source=source)


def kappas(results: PartialResults, first: LanguageClassifier, second: LanguageClassifier) -> dict[str, float]:
    """Return `kappa/token` and `kappa/sequence` of two classifiers, from -1 to 1; NaN if both assign one class only.

    `DROPPED` counts as a class. `kappa/n` is the number of tokens, and also of texts, in the sample.
    """
    tokens, targets, texts = (
        [value for part in results.read(f"sampled_{name}") for value in part.tolist()]
        for name in ("tokens", "targets", "texts")
    )
    classes: dict[str, list[list[int]]] = {"token": [], "sequence": []}
    for classifier in (first, second):
        by_token = [
            int(classifier.classify_tokens(np.array([t]), target)[0]) for t, target in zip(tokens, targets, strict=True)
        ]
        classes["token"].append(by_token)
        classes["sequence"].append(
            [classifier.classify_text(text, target) for text, target in zip(texts, targets, strict=True)]
        )
    kappa = {
        f"kappa/{level}": float(cohen_kappa_score(*both)) if len({*both[0], *both[1]}) > 1 else math.nan
        for level, both in classes.items()
    }
    return {**kappa, "kappa/n": float(len(tokens))}
