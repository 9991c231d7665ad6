"""Options with several values in one text: each is parsed, and an error names the whole text and the wrong value."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from whichlora.errors import OptionError

T = TypeVar("T")


def parse_list(option: str, text: str, parse: Callable[[str, str], T]) -> list[T]:
    """Parse values that are separated by commas, and may have spaces around them.

    Args:
        parse: called with the option and each value.

    Raises:
        OptionError: a value is not allowed.
    """
    found = []
    for part in text.split(","):
        try:
            found.append(parse(option, part.strip()))
        except OptionError as error:
            raise within(error, option, text) from error
    return found


def within(error: OptionError, option: str, text: str) -> OptionError:
    """Return the error of an option whose text has the wrong value among others; any other error as it is."""
    if error.option != option or str(error.value) == text:
        return error
    return OptionError(option, text, f"has {error.value or 'an empty value'}; {error.allowed}")
