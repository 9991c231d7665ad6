"""Detects the language of a text with CLD3 or Lingua through one interface.

CLD3 (`cld3-py`, module `gcld3`) knows over 100 languages and returns one for any text; Lingua knows 75 and is designed
for single words and phrases. `language/agreement.py` measures how far they agree.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Any, Protocol

from whichlora.errors import OptionError

DETECTORS = ("cld3", "lingua")
MIN_BYTES, MAX_BYTES = 0, 1000
"""CLD3's bounds on the length of a text: it detects nothing in a shorter text and samples parts of a longer one."""
RELIABLE = 0.7
"""Lowest probability that CLD3 calls reliable. Lingua has no such flag, so the same threshold is applied."""
UNKNOWN = ""

_ALIASES = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "nb": "no", "nn": "no", "fil": "tl"}


@dataclass(frozen=True, slots=True)
class Detection:
    """A language in `canonical` spelling, or `UNKNOWN`, and whether the detector calls its answer reliable."""

    language: str
    reliable: bool


NO_LANGUAGE = Detection(UNKNOWN, True)


class Detector(Protocol):
    """Detects the language of a text that contains a letter."""

    def detect(self, text: str) -> Detection:
        """Return the most likely language."""


def canonical(code: str) -> str:
    """Normalise a language code: ISO 639-1 where there is one, without the script (`hi-Latn` becomes `hi`)."""
    language = code.lower().replace("_", "-").partition("-")[0]
    return _ALIASES.get(language, language)


def detect(detector: Detector, text: str) -> Detection:
    """Return the language of a text, or `NO_LANGUAGE` if it contains no letter.

    U+FFFD, to which an incomplete UTF-8 sequence decodes, is not a letter. The check is needed because detectors answer
    for any input: CLD3 calls digits, punctuation and the empty string Japanese, with a probability of .78.
    """
    text = text.replace("�", " ").strip()
    if not any(unicodedata.category(character)[0] == "L" for character in text):
        return NO_LANGUAGE
    return detector.detect(text)


@functools.cache
def get_detector(name: str, candidates: tuple[str, ...] | None = None) -> Detector:
    """Return a detector, cached for the process: Lingua's models of all languages take 15 s to load and 1 GB of memory.

    `candidates` are the languages that Lingua chooses from; None means all. CLD3 always chooses from all.

    Raises:
        OptionError: Lingua does not know one of the candidates, or there is only one.
    """
    return _Lingua(candidates) if name == "lingua" else _Cld3()


class _Cld3:
    def __init__(self) -> None:
        import gcld3

        self._identifier: Any = gcld3.NNetLanguageIdentifier(min_num_bytes=MIN_BYTES, max_num_bytes=MAX_BYTES)

    def detect(self, text: str) -> Detection:
        result = self._identifier.FindLanguage(text=text)
        language = UNKNOWN if result.language == "und" else canonical(result.language)
        return Detection(language, bool(result.is_reliable))


class _Lingua:
    def __init__(self, candidates: tuple[str, ...] | None) -> None:
        import lingua

        known: dict[str, list[Any]] = {}
        for language in lingua.Language.all():
            known.setdefault(canonical(language.iso_code_639_1.name), []).append(language)
        wanted = sorted(known) if candidates is None else [canonical(code) for code in candidates]
        missing = [code for code in wanted if code not in known]
        if missing or len(wanted) < 2:
            wrong = f"has {missing[0] or 'an empty value'}; " if missing and len(wanted) > 1 else ""
            allowed = f"must be two or more of {', '.join(sorted(known))} with detector=lingua, or all, task or auto"
            raise OptionError("candidates", ",".join(wanted), wrong + allowed)
        languages = [language for code in wanted for language in known[code]]
        self._detector: Any = lingua.LanguageDetectorBuilder.from_languages(*languages).build()

    def detect(self, text: str) -> Detection:
        best = self._detector.compute_language_confidence_values(text)[0]
        if best.value == 0:  # then the order of the languages is arbitrary
            return NO_LANGUAGE
        return Detection(canonical(best.language.iso_code_639_1.name), best.value >= RELIABLE)
