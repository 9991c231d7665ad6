"""Finds the label that a value in the data stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from whichlora.data.tasks.declared.columns import as_text
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.errors import did_you_mean


class Labels:
    """The labels of a task, by every value that stands for one.

    A value may be in another case, a boolean, a number in a table with gaps (`1.0`), or the number of one of `classes`.
    """

    def __init__(self, declaration: Declaration, classes: Sequence[str]) -> None:
        self._names = {as_text(value) or "": name for value, name in declaration.label_names.items()}
        for number, value in enumerate(classes):
            if value in self._names:
                self._names.setdefault(str(number), self._names[value])
        alike: dict[str, set[str]] = {}
        for value, name in self._names.items():
            alike.setdefault(value.casefold(), set()).add(name)
        self._alike = {value: names.pop() for value, names in alike.items() if len(names) == 1}

    def find(self, value: Any, text: str) -> str:
        """Return the label of a value, which is `text` as text.

        Raises:
            ValueError: no label is declared for it; the message names the most similar one.
        """
        for candidate in (text, str(int(value)) if isinstance(value, bool) else text.removesuffix(".0")):
            if candidate in self._names:
                return self._names[candidate]
        if text.casefold() in self._alike:
            return self._alike[text.casefold()]
        raise ValueError(f"label {text!r} is not declared{did_you_mean(text, self._names)}")
