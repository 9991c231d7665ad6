"""Reads general texts, on which forgetting is measured: the packaged Universal Declaration, or a user's own files.

The articles of the Universal Declaration of Human Rights are packaged in 14 languages (sources in NOTICE.txt).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from whichlora.caller import given_path
from whichlora.errors import OptionError, check_text, is_file, is_folder

NONE, UDHR = "none", "udhr"
"""Values of the option `forgetting` that are no path."""
_FOLDER = files("whichlora.data.general_text")
LANGUAGES = ("en", "sw", "ur", "hi", "bn", "te", "tr", "az", "kk", "ky", "uz", "tk", "tt", "ug")
"""The languages of the packaged text, by ISO 639-1."""
_CODES = """
eng=en swa=sw swh=sw urd=ur hin=hi ben=bn tel=te tur=tr aze=az azj=az kaz=kk kir=ky uzb=uz uzn=uz tuk=tk tat=tt uig=ug
"""
_LONGER = dict(pair.split("=") for pair in _CODES.split())
"""ISO 639-1 codes by those of three letters, which some tasks use."""
_BREAK = re.compile(r"\n\s*\n")


@dataclass(frozen=True, kw_only=True)
class GeneralText:
    """A text in one language.

    Attributes:
        name: the language, as metrics name it; for a user's file its name without ending.
        blocks: the paragraphs between empty lines, such as articles, which are read one by one.
        origin: where it comes from, a path or `udhr`.
    """

    name: str
    blocks: Sequence[str]
    origin: str

    @property
    def digest(self) -> str:
        """SHA-256 of the blocks."""
        return hashlib.sha256("\0".join(self.blocks).encode()).hexdigest()


def check_option(option: str, text: str) -> str:
    """Check a value of the option `forgetting` as far as possible without the run's languages.

    Raises:
        OptionError: it is not `none`, `udhr`, `udhr:` and languages, or readable text.
    """
    if check_text(option, text) not in (NONE, UDHR):
        general_texts(option, text, ())
    return text


def general_texts(option: str, value: str, languages: Sequence[str]) -> dict[str, GeneralText]:
    """Return the texts that a value of the option `forgetting` stands for, by their names in metrics.

    Args:
        languages: the languages of the run, which `udhr` stands for.

    Raises:
        OptionError: the packaged text is not in a language, or a file cannot be read.
    """
    if value == NONE:
        return {}
    if value == UDHR or value.startswith(f"{UDHR}:"):
        given = [code.strip() for code in value.partition(":")[2].split(",")] if ":" in value else languages
        return _packaged(option, value, given)
    texts = [_own(option, value, path) for path in _paths(option, value)]
    return {text.name: text for text in texts}


def two_letters(language: str) -> str:
    """Return the ISO 639-1 code of a packaged language, as `sw` for `swh_Latn`; other codes without their script."""
    base = language.replace("_", "-").partition("-")[0].lower()
    return _LONGER.get(base, base)


def _packaged(option: str, value: str, languages: Sequence[str]) -> dict[str, GeneralText]:
    texts = {}
    for language in languages:
        code = two_letters(language)
        if code not in LANGUAGES:
            choice = f"{', '.join(LANGUAGES)} ({UDHR}:en,hi), or give a text of your own"
            raise OptionError(option, value, f"the packaged text is not in {language!r}; allowed are {choice}")
        blocks = _blocks((_FOLDER / f"{code}.txt").read_text(encoding="utf-8"))
        texts[code] = GeneralText(name=code, blocks=blocks, origin=UDHR)
    return texts


def _paths(option: str, value: str) -> list[Path]:
    path = given_path(value)
    if is_file(path):  # reading a pipe would wait for ever
        return [path]
    found = sorted(path.glob("*.txt")) if is_folder(path) else []
    if not found:
        what = "has no .txt file" if is_folder(path) else "is neither a file nor a folder"
        raise OptionError(option, value, f"{what}; allowed are {NONE}, {UDHR}, {UDHR}:en,hi, a text file or a folder")
    return found


def _own(option: str, value: str, path: Path) -> GeneralText:
    if not re.fullmatch(r"[\w-]{1,40}", path.stem, re.ASCII):
        allowed = "must be a language or another name of letters, digits, - and _, because metrics are named by it"
        raise OptionError(option, value, f"the name {path.name} without its ending {allowed}")
    try:
        blocks = _blocks(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(option, value, f"{path.name} must be UTF-8 text ({type(error).__name__})") from error
    if not blocks:
        raise OptionError(option, value, f"{path.name} is empty")
    return GeneralText(name=path.stem, blocks=blocks, origin=str(path.absolute()))


def _blocks(text: str) -> tuple[str, ...]:
    return tuple(block.strip() for block in _BREAK.split(text) if block.strip())
