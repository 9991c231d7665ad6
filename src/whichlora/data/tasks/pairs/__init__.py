"""Word pairs: the packaged ones (NOTICE.txt), or a user's file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from whichlora.errors import OptionError, choose

Pair = tuple[str, str]
"""A text in English, or another first language, and its translation."""
_FOLDER = files("whichlora.data.tasks.pairs")
LANGUAGES = tuple(
    sorted(
        entry.name.removeprefix("en-").removesuffix(".tsv") for entry in _FOLDER.iterdir() if entry.name[-4:] == ".tsv"
    )
)
"""Languages that have packaged pairs with English (ISO 639-1)."""
LEAST = 2
"""A pair is compared with the others, so there must be another."""


def packaged(language: str) -> list[Pair]:
    """Return the packaged pairs of English and a language.

    Raises:
        OptionError: there are none.
    """
    choose("language", language, LANGUAGES)
    text = (_FOLDER / f"en-{language}.tsv").read_text(encoding="utf-8")
    return [(first, second) for first, _, second in (line.partition("\t") for line in text.splitlines())]


def from_file(path: str, *, option: str = "pairs") -> list[Pair]:
    """Read pairs from a UTF-8 file with a text, a tab and its translation a line; `option` is the one that gave it.

    Raises:
        OptionError: there is no such file, or a line is otherwise.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        named = "words (packaged), task, or " if option == "pairs" else ""
        allowed = f"must be {named}a UTF-8 file of pairs ({type(error).__name__})"
        raise OptionError(option, path, allowed) from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        texts = [text.strip() for text in line.split("\t")]
        if len(texts) != 2 or not all(texts):
            raise OptionError(option, path, f"line {number} is not a text, a tab and its translation")
        pairs.append((texts[0], texts[1]))
    if len(pairs) < LEAST:
        raise OptionError(option, path, f"must have at least {LEAST} pairs")
    return pairs
