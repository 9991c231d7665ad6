"""Exceptions that users can act on, and checks of option values."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

_NAME_BYTES = 200


class OptionError(ValueError):
    """An invalid option value; the message is one line, `option=value: what is allowed`."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option, self.value, self.allowed = option, value, allowed
        super().__init__(" ".join(f"{option}={value}: {allowed}".split("\n")))


def check_choice(option: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`.

    Raises:
        OptionError: it is not; the message lists the choices and suggests the most similar one.
    """
    names = list(choices)
    if value in names:
        return value
    raise OptionError(option, value, f"allowed are {', '.join(names)}{did_you_mean(value, names)}")


def parse_integer(option: str, text: str, low: int, high: int = 10**9) -> int:
    """Parse an option as an integer.

    Raises:
        OptionError: the text is not an integer from `low` to `high`.
    """
    if not (text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise OptionError(option, text, f"must be a whole number from {low} to {high}")
    return int(text)


def check_folder(option: str, value: object, path: Path) -> None:
    """Check that an absolute path is a folder or can be created as one.

    Raises:
        OptionError: the path or one of its parents is a file.
    """
    if any(parent.exists() and not parent.is_dir() for parent in (path, *path.parents)):
        raise OptionError(option, value, "must be a new or existing folder, but it or a parent is a file")


def check_name(option: str, name: str, prefix: str = "") -> None:
    """Check the name of a new experiment, which becomes the name of a folder and a value in the tracking database.

    Args:
        option: name of the option or variable, for the error message.
        name: the name.
        prefix: text before the explanation in the error message.

    Raises:
        OptionError: the name is empty, a path, hidden, too long, or has spaces around it or control characters in it.
    """
    allowed = f"{prefix}must be a name without slashes, backslashes, control characters and a leading dot, of at most "
    allowed += f"{_NAME_BYTES} bytes"
    bad = not name or name != name.strip() or name.startswith(".") or len(name.encode("utf-8", "replace")) > _NAME_BYTES
    if bad or not name.isprintable() or any(mark in name for mark in "/\\"):
        raise OptionError(option, ascii(name)[1:-1] if not name.isprintable() else name, allowed)


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """Return a suffix for an error message that suggests the name most similar to `value`; empty if none is."""
    nearest = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class ProofError(RuntimeError):
    """A run failed verification: it did not train what its spec says. The message gives the evidence."""


class NonFiniteError(ProofError):
    """A loss, gradient, tensor, logit or score is NaN or infinite; the message names it and, in training, the step."""


class DamagedError(RuntimeError):
    """A file is missing, or its content is not what was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is missing or damaged")


class LostLeaseError(RuntimeError):
    """This process was declared dead and its work was assigned to another process."""


class PrunedError(RuntimeError):
    """A trial was pruned because others scored better at the same point; the message says when."""


class MemoryExhausted(RuntimeError):
    """Out of accelerator memory after every fallback; the message lists the fallbacks tried."""

    def __init__(self, text: str) -> None:
        super().__init__(f"out of memory: {text}; use quantization=nf4, a smaller model or a device with more memory")
