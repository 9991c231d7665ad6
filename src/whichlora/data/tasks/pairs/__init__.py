"""Reads word pairs, packaged (sources in NOTICE.txt) or from a user's file."""

from __future__ import annotations

from importlib.resources import files

from whichlora.caller import given_path
from whichlora.errors import OptionError, check_choice, is_file

Pair = tuple[str, str]
"""A text in the first language (English in the packaged pairs) and its translation."""
_FOLDER = files("whichlora.data.tasks.pairs")
LANGUAGES = tuple(
    sorted(
        entry.name.removeprefix("en-").removesuffix(".tsv") for entry in _FOLDER.iterdir() if entry.name[-4:] == ".tsv"
    )
)
"""ISO 639-1 codes of the languages with packaged pairs."""
MIN_PAIRS = 2
"""Minimum number of pairs in a file, because each pair is compared with the others."""


def packaged(language: str) -> list[Pair]:
    """Return the packaged pairs of English and a language.

    Raises:
        OptionError: no pairs are packaged for the language.
    """
    check_choice("language", language, LANGUAGES)
    text = (_FOLDER / f"en-{language}.tsv").read_text(encoding="utf-8")
    return [(first, second) for first, _, second in (line.partition("\t") for line in text.splitlines())]


def from_file(path: str, *, option: str = "pairs") -> list[Pair]:
    """Read pairs from a UTF-8 file with one pair per line: a text, a tab and its translation.

    Args:
        option: name of the option whose value is `path`, for error messages.

    Raises:
        OptionError: the file cannot be read, a line is malformed, or there are fewer than `MIN_PAIRS` pairs.
    """
    file = given_path(path)
    try:
        if not is_file(file):  # reading a pipe would wait for ever
            raise FileNotFoundError
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        keywords = "words (packaged), task, or " if option == "pairs" else ""
        allowed = f"must be {keywords}a UTF-8 file of pairs ({type(error).__name__})"
        raise OptionError(option, path, allowed) from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        texts = [text.strip() for text in line.split("\t")]
        if len(texts) != 2 or not all(texts):
            raise OptionError(option, path, f"line {number} is not a text, a tab and its translation")
        pairs.append((texts[0], texts[1]))
    if len(pairs) < MIN_PAIRS:
        raise OptionError(option, path, f"must have at least {MIN_PAIRS} pairs")
    return pairs
