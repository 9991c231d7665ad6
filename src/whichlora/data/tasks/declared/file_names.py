"""Finds the files that a pattern of a declaration stands for, and never those of another language."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.declared.layouts import filled
from whichlora.errors import is_file

_TOKEN = re.compile(r"(\*|\{\w*\})")
_NO_LETTER_BEFORE, _NO_LETTER_AFTER = r"(?<![^\W_])", r"(?![^\W_])"
"""Bounds of a language's name in a file's name: `et` is in `test.et.csv`, and not in `set.csv`."""


def files_of(declaration: Declaration, folder: Path | None, pattern: str, names: Mapping[str, str]) -> list[Path]:
    """Return the files that a pattern stands for, also compressed; several if it has an asterisk.

    Args:
        names: the values of the placeholders, for one language.
    """
    if folder is None:
        return []
    name = filled(pattern, names)
    if "*" not in name:
        return [path for path in (folder / name, folder / f"{name}.gz") if is_file(path)][:1]
    escaped = "*".join(glob.escape(part) for part in name.split("*"))
    found = sorted(path for path in folder.glob(escaped) if is_file(path))
    own, *others = (_expression(pattern, each) for each in (names, *_longer(declaration, names)))
    relative = {path: path.relative_to(folder).as_posix() for path in found}
    return [
        path
        for path, text in relative.items()
        if own.fullmatch(text) and not any(other.fullmatch(text) for other in others)
    ]


def without_other_languages(declaration: Declaration, language: str, names: Sequence[str]) -> list[str]:
    """Return the names of files that have no other language of the declaration in them, or this one too."""

    def has(name: str, code: str) -> bool:
        values = {code, declaration.name_in_data(code)}
        return any(re.search(_NO_LETTER_BEFORE + re.escape(v) + _NO_LETTER_AFTER, name) for v in values)

    others = [code for code in declaration.codes if code != language]
    return [name for name in names if has(name, language) or not any(has(name, code) for code in others)]


def _longer(declaration: Declaration, names: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the placeholders of languages whose code or name has this one's in it, as `zh-TW` has `zh`."""
    values = [{"lang": code, "name": declaration.name_in_data(code)} for code in declaration.codes]
    longer = [v for v in values if any(names[key] != v[key] and names[key] in v[key] for key in v)]
    return [{**names, **v} for v in longer]


def _expression(pattern: str, names: Mapping[str, str]) -> re.Pattern[str]:
    """Return the expression of a pattern; a language beside an asterisk is a word of its own."""
    tokens = [token for token in _TOKEN.split(pattern) if token]
    texts = []
    for before, token, after in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        if token == "*":
            texts.append("[^/]*")
            continue
        text = re.escape(filled(token, names))
        if token in ("{lang}", "{name}"):
            text = _NO_LETTER_BEFORE * (before == "*") + text + _NO_LETTER_AFTER * (after == "*")
        texts.append(text)
    return re.compile("".join(texts))
