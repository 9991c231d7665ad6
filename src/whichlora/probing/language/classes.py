"""Classifies tokens and texts as source language, target language or other language.

The source language is English as a rule, after which its class is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from whichlora.data.detectors import Detection, Detector, canonical, detect, get_detector
from whichlora.data.encoding import special_ids
from whichlora.data.tasks.base import SOURCE_LANGUAGE

if TYPE_CHECKING:
    from whichlora.probing.choices import LanguageChoices

ENGLISH, TARGET, OTHER, DROPPED = range(4)
CLASSES = ("english", "target", "other")


class LanguageClassifier:
    """Assigns `ENGLISH` (the source language), `TARGET` or `OTHER` to tokens and texts, or `DROPPED` if the options
    exclude the detection.
    """

    def __init__(
        self,
        choices: LanguageChoices,
        tokenizer: Any,
        *,
        detector: str | None = None,
        source: str | None = SOURCE_LANGUAGE,
    ) -> None:
        """Create a classifier.

        Args:
            detector: overrides the detector of the choices.
            source: the source language; None if there is none.

        Raises:
            OptionError: the detector does not know one of the candidates.
        """
        self._choices, self._tokenizer = choices, tokenizer
        self._source = None if source is None else canonical(source)
        self._special = special_ids(tokenizer) if choices.special_tokens == "drop" else frozenset()
        self._detector: Detector = get_detector(detector or choices.detector, choices.candidates)
        self._detections: dict[int, Detection] = {}
        self._tables: dict[str, np.ndarray[Any, Any]] = {}

    def decode(self, ids: Sequence[int]) -> str:
        """Decode token ids to text, without special tokens unless they are kept."""
        skip = self._choices.special_tokens == "drop"
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip)
        return text

    def classify_text(self, text: str, target: str) -> int:
        """Return the class of a text for a target language; `DROPPED` if empty, because all its tokens were special."""
        return self._class(detect(self._detector, text), target) if text else DROPPED

    def classify_tokens(self, ids: np.ndarray[Any, Any], target: str) -> np.ndarray[Any, Any]:
        """Return the class of each token id, in the shape of `ids`; detections are cached by id.

        Special tokens are `DROPPED` unless the options keep them: they have no language, and `decode` skips them too.
        """
        table = self._tables.get(target, np.empty(0, np.int8))
        if ids.size and ids.max() >= len(table):
            table = np.concatenate([table, np.full(int(ids.max()) + 1 - len(table), -1, np.int8)])
            self._tables[target] = table
        for token in map(int, np.unique(ids[table[ids] < 0])):
            if token in self._special:
                table[token] = DROPPED
                continue
            if token not in self._detections:
                self._detections[token] = detect(self._detector, self.decode([token]))
            table[token] = self._class(self._detections[token], target)
        classes: np.ndarray[Any, Any] = table[ids]
        return classes

    def _class(self, detection: Detection, target: str) -> int:
        unreliable = self._choices.unreliable == "drop" and not detection.reliable
        if unreliable or (self._choices.candidates and detection.language not in self._choices.candidates):
            return DROPPED
        return {self._source: ENGLISH, canonical(target): TARGET}.get(detection.language, OTHER)


def class_shares(classes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the shares of source, target and other among the classes that are not `DROPPED`, (3,); NaN if all are."""
    counts = np.bincount(classes.ravel(), minlength=DROPPED + 1)[:DROPPED]
    total = counts.sum()
    result: np.ndarray[Any, Any] = counts / total if total else np.full(len(CLASSES), np.nan)
    return result
