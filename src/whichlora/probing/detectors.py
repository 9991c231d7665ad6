"""What language a text is in: CLD3 or Lingua behind one interface.

CLD3 (`cld3-py`, module `gcld3`) knows over 100 languages and answers for any text; Lingua knows 75 and is made for
single words and phrases. How far they agree is measured by `agreement.py`.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import Any, Protocol

from whichlora.errors import OptionError

DETECTORS = ("cld3", "lingua")
MIN_BYTES, MAX_BYTES = 0, 1000
"""Of a text, for CLD3: a shorter one would be left unanswered, of a longer one some parts are read."""
RELIABLE = 0.7
"""The probability from which on CLD3 calls its answer reliable. Lingua calls none so; the same bound is used for it."""
UNKNOWN = ""

_ALIASES = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "nb": "no", "nn": "no", "fil": "tl"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A language in `canonical` spelling, `UNKNOWN` if there is none, and whether the detector trusts its answer."""

    language: str
    reliable: bool


NOTHING = Verdict(UNKNOWN, True)


class Detector(Protocol):
    """Tells the language of a text that has a letter."""

    def detect(self, text: str) -> Verdict:
        """Return the most likely language."""


def canonical(code: str) -> str:
    """Return one spelling for a language: ISO 639-1 where it has a code, and without the script (`hi-Latn` is `hi`)."""
    language = code.lower().partition("-")[0]
    return _ALIASES.get(language, language)


def detect(detector: Detector, text: str) -> Verdict:
    """Return the language of a text; `NOTHING` for one without a letter.

    U+FFFD, which part of a character's UTF-8 becomes, is no letter. Detectors would answer all the same: CLD3 calls
    digits, punctuation and nothing at all Japanese, with a probability of .78.
    """
    text = text.replace("�", " ").strip()
    if not any(unicodedata.category(character)[0] == "L" for character in text):
        return NOTHING
    return detector.detect(text)


@functools.cache
def get_detector(name: str, candidates: tuple[str, ...] | None = None) -> Detector:
    """Return a detector, kept for the process: Lingua's models of all languages take 15 s to load, and 1 GB.

    `candidates` are the languages that Lingua chooses among; None stands for all. CLD3 always chooses among all.

    Raises:
        OptionError: Lingua does not know one of the candidates, or there is but one.
    """
    return _Lingua(candidates) if name == "lingua" else _Cld3()


class _Cld3:
    def __init__(self) -> None:
        import gcld3

        self._identifier: Any = gcld3.NNetLanguageIdentifier(min_num_bytes=MIN_BYTES, max_num_bytes=MAX_BYTES)

    def detect(self, text: str) -> Verdict:
        found = self._identifier.FindLanguage(text=text)
        language = UNKNOWN if found.language == "und" else canonical(found.language)
        return Verdict(language, bool(found.is_reliable))


class _Lingua:
    def __init__(self, candidates: tuple[str, ...] | None) -> None:
        import lingua

        known: dict[str, list[Any]] = {}
        for language in lingua.Language.all():
            known.setdefault(canonical(language.iso_code_639_1.name), []).append(language)
        wanted = sorted(known) if candidates is None else [canonical(code) for code in candidates]
        missing = [code for code in wanted if code not in known]
        if missing or len(wanted) < 2:
            allowed = f"must be two or more of {', '.join(sorted(known))} with detector=lingua"
            raise OptionError("candidates", ",".join(wanted), allowed)
        languages = [language for code in wanted for language in known[code]]
        self._detector: Any = lingua.LanguageDetectorBuilder.from_languages(*languages).build()

    def detect(self, text: str) -> Verdict:
        best = self._detector.compute_language_confidence_values(text)[0]
        if best.value == 0:  # then the order of the languages says nothing
            return NOTHING
        return Verdict(canonical(best.language.iso_code_639_1.name), best.value >= RELIABLE)
