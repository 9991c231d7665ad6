"""Tells whether generated answers are in the language that was asked for, by CLD3.

CLD3 is trained on texts and guesses at short ones. Of passages of the Universal Declaration in the 11 of its packaged
languages that CLD3 knows it names the language rightly in 30 to 100 % with 5 letters, 61 to 100 % with 10, 83 to 100 %
with 20 and 94 to 100 % with 30. Shorter answers are therefore not counted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whichlora.data.detectors import canonical, detect, get_detector
from whichlora.data.general_text import two_letters

MEASURE, GOLD = "language_consistency", "gold_language_consistency"
MIN_LETTERS = 30
"""Letters of an answer from which it is counted."""
_CODES = """
af am ar az be bg bn bs ca ceb co cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha haw he hi hmn hr ht hu hy
id ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny pa pl ps pt ro ru sd si sk
sl sm sn so sq sr st su sv sw ta te tg th tl tr uk ur uz vi xh yi yo zh zu
"""
_KNOWN = frozenset(_CODES.split())
"""The languages that CLD3 knows, as `canonical` spells them. Tatar, Turkmen and Uyghur are not among them."""


def in_language(texts: Sequence[str | None], languages: Sequence[str]) -> NDArray[np.float64]:
    """Return for each text 1 if it is in its language and 0 if it is in another, (texts,).

    NaN stands for a text of less than `MIN_LETTERS` letters, and for a language that CLD3 does not know.
    """
    detector = get_detector("cld3")
    values = np.full(len(texts), np.nan)
    for position, (text, code) in enumerate(zip(texts, languages, strict=True)):
        wanted = canonical(two_letters(code))
        if text is not None and wanted in _KNOWN and _letters(text) >= MIN_LETTERS:
            values[position] = detect(detector, text).language == wanted
    return values


def _letters(text: str) -> int:
    return sum(unicodedata.category(character)[0] == "L" for character in text)
