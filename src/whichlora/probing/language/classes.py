"""English, the target language or other: what a detector's verdicts come to under the choices of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.probing.detectors import Detector, Verdict, detect, get_detector
from whichlora.probing.language.positions import special_ids

if TYPE_CHECKING:
    from whichlora.probing.options import LanguageChoices

ENGLISH, TARGET, OTHER, DROPPED = range(4)
CLASSES = ("english", "target", "other")


class LanguageClassifier:
    """Puts tokens and texts into `ENGLISH`, `TARGET` or `OTHER`; `DROPPED` where the choices leave a verdict out."""

    def __init__(self, choices: LanguageChoices, tokenizer: Any, *, detector: str | None = None) -> None:
        """`detector` stands in for that of the choices.

        Raises:
            OptionError: the detector does not know one of the candidates.
        """
        self._choices, self._tokenizer = choices, tokenizer
        self._special = special_ids(tokenizer) if choices.special_tokens == "drop" else frozenset()
        self._detector: Detector = get_detector(detector or choices.detector, choices.candidates)
        self._verdicts: dict[int, Verdict] = {}
        self._tables: dict[str, np.ndarray[Any, Any]] = {}

    def text_of(self, ids: Sequence[int]) -> str:
        """Return what token ids stand for; special ones for nothing, unless they are kept."""
        skip = self._choices.special_tokens == "drop"
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=skip)
        return text

    def of_text(self, text: str, target: str) -> int:
        """Return the class of a text for a target language; `DROPPED` if all its tokens were special."""
        return self._class(detect(self._detector, text), target) if text else DROPPED

    def of_tokens(self, ids: np.ndarray[Any, Any], target: str) -> np.ndarray[Any, Any]:
        """Return the classes of token ids, each taken on its own, in the shape of `ids`; each is detected once.

        Special ones are `DROPPED`, unless they are kept: they are in no language, and a text is read without them too.
        """
        table = self._tables.get(target, np.empty(0, np.int8))
        if ids.size and ids.max() >= len(table):
            table = np.concatenate([table, np.full(int(ids.max()) + 1 - len(table), -1, np.int8)])
            self._tables[target] = table
        for token in map(int, np.unique(ids[table[ids] < 0])):
            if token in self._special:
                table[token] = DROPPED
                continue
            if token not in self._verdicts:
                self._verdicts[token] = detect(self._detector, self.text_of([token]))
            table[token] = self._class(self._verdicts[token], target)
        classes: np.ndarray[Any, Any] = table[ids]
        return classes

    def _class(self, verdict: Verdict, target: str) -> int:
        unreliable = self._choices.unreliable == "drop" and not verdict.reliable
        if unreliable or (self._choices.candidates and verdict.language not in self._choices.candidates):
            return DROPPED
        return {SOURCE_LANGUAGE: ENGLISH, target: TARGET}.get(verdict.language, OTHER)


def shares(classes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the shares of English, target and other in what was not dropped, (3,); NaN where nothing is left."""
    counts = np.bincount(classes.ravel(), minlength=DROPPED + 1)[:DROPPED]
    total = counts.sum()
    result: np.ndarray[Any, Any] = counts / total if total else np.full(len(CLASSES), np.nan)
    return result
