"""How far two detectors agree, on a sample of what the layers decoded to: Cohen's kappa over the classes of a probe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import cohen_kappa_score

from whichlora.probing.detectors import DETECTORS
from whichlora.probing.language.classes import LanguageClassifier

if TYPE_CHECKING:
    from whichlora.probing.options import LanguageChoices
    from whichlora.probing.partial_results import Arrays, PartialResults


class Sample:
    """Tokens and texts out of any layer, about `count` of each from all items: the same ones for the same seed."""

    def __init__(self, count: int, n_items: int, seed: int) -> None:
        self._each = math.ceil(count / n_items)
        self._stride = math.ceil(n_items / count) if count else 0
        self._seed = seed
        self._taken: list[tuple[int, str, str]] = []

    def take(self, index: int, target: str, tokens: np.ndarray[Any, Any], texts: Sequence[str]) -> None:
        """Draw from an item's tokens, (layers, positions, k), and the texts of its layers."""
        if not self._stride or index % self._stride or not tokens.size:
            return
        random = np.random.default_rng([self._seed, index])
        for _ in range(self._each):
            layer, position, text = random.integers([*tokens.shape[:2], len(texts)])
            self._taken.append((int(tokens[layer, position, 0]), target, texts[text]))

    def arrays(self) -> Arrays:
        """Return what was drawn, to store."""
        return {
            "sampled_tokens": np.array([token for token, _, _ in self._taken], dtype=int),
            "sampled_targets": np.array([target for _, target, _ in self._taken], dtype=str),
            "sampled_texts": np.array([text for _, _, text in self._taken], dtype=str),
        }


def other_detector(choices: LanguageChoices, tokenizer: Any) -> LanguageClassifier | None:
    """Return a judge with the other detector; None if no agreement is wanted.

    Raises:
        OptionError: the other detector does not know one of the candidates.
    """
    if not choices.agreement:
        return None
    (other,) = (name for name in DETECTORS if name != choices.detector)
    return LanguageClassifier(choices, tokenizer, detector=other)


def kappas(parts: PartialResults, one: LanguageClassifier, other: LanguageClassifier) -> dict[str, float]:
    """Return `kappa/token` and `kappa/sequence` of two judges, from -1 to 1; NaN where both only ever say the same.

    "Dropped" is a class like the others. `kappa/n` is the number of tokens, and of texts, that were drawn.
    """
    tokens, targets, texts = (
        [value for part in parts.read(f"sampled_{name}") for value in part.tolist()]
        for name in ("tokens", "targets", "texts")
    )
    classes: dict[str, list[list[int]]] = {"token": [], "sequence": []}
    for judge in (one, other):
        by_token = [int(judge.of_tokens(np.array([t]), target)[0]) for t, target in zip(tokens, targets, strict=True)]
        classes["token"].append(by_token)
        classes["sequence"].append([judge.of_text(text, target) for text, target in zip(texts, targets, strict=True)])
    found = {
        f"kappa/{level}": float(cohen_kappa_score(*both)) if len({*both[0], *both[1]}) > 1 else math.nan
        for level, both in classes.items()
    }
    return {**found, "kappa/n": float(len(tokens))}
