"""Transliterates labels whose letters are not in the plots' font and would print as boxes."""

from __future__ import annotations

import functools
import unicodedata

from matplotlib import font_manager


def transliterate(text: str) -> str:
    """Return the text in Latin letters where DejaVu Sans lacks a glyph; it has Latin, Greek, Cyrillic and Arabic.

    The Latin letters come from the characters' Unicode names. In Indic scripts a consonant carries the vowel a unless a
    sign changes or removes it: "हिन्दी" becomes "hindii". A character whose name spells no sound, such as a Chinese
    one, becomes its code point.
    """
    if all(ord(c) < 0x250 or ord(c) in _charmap() for c in text):
        return text
    result = ""
    for c in unicodedata.normalize("NFC", text):
        if ord(c) in _charmap() or c.isspace():
            result += c
            continue
        name = unicodedata.name(c, "")
        _, _, sound = name.partition(" VOWEL SIGN ")
        if sound:
            result = result.removesuffix("a") + sound.lower()
        elif name.endswith((" SIGN VIRAMA", " SIGN NUKTA")):
            result = result.removesuffix("a") if name.endswith("VIRAMA") else result
        elif " LETTER " in name:
            result += name.rpartition(" LETTER ")[2].lower().replace(" ", "")
        elif name.endswith((" SIGN ANUSVARA", " SIGN CANDRABINDU")):
            result += "m"
        elif " DIGIT " in name:
            result += str(unicodedata.digit(c))
        elif unicodedata.category(c)[0] not in "MC":
            result += f"U+{ord(c):04X}"
    return result


@functools.cache
def _charmap() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())
