"""Exceptions that users can act on, and checks of option values."""

from __future__ import annotations

import difflib
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from whichlora.masking import masked

T = TypeVar("T")
_NAME_BYTES = 200
_HINT = " (did you mean"
_WORD = re.compile(r"[\w-]+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class OptionError(ValueError):
    """An invalid option value; the message is one line, `option=value: what is allowed`, without passwords."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option, self.value, self.allowed = option, value, allowed
        super().__init__(printable(masked(f"{option}={value}: {' '.join(str(allowed).splitlines())}")))

    def naming(self, word: str) -> OptionError:
        """Return the error with one more allowed value, such as `auto`, unless its message names that already."""
        if word in _WORD.findall(self.allowed):
            return self
        allowed, hint, name = self.allowed.partition(_HINT)
        return OptionError(self.option, self.value, f"{allowed}, or {word}{hint}{name}")


class PlacedError(ValueError):
    """An error in a section of a file; `path` leads from the section to the value. The message names its key."""

    def __init__(self, path: tuple[str | int, ...], problem: str) -> None:
        super().__init__(problem)
        self.path = path


def printable(text: str) -> str:
    """Return a text in which line breaks, control characters and the like are escaped: a terminal executes some."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def has_control_characters(text: str) -> bool:
    """Return whether a text contains control characters, line separators or bytes that are not UTF-8."""
    return any(map(_is_control, text))


def one_line(text: str) -> str:
    """Return a text with spaces in the place of line breaks and control characters."""
    return "".join(" " if _is_control(character) else character for character in text)


def in_a_line(problem: object, limit: int = 300) -> str:
    """Return an exception's message or a text as one printable line of at most `limit` characters, without passwords.

    Passwords are masked before the text is cut, which could leave half of one.
    """
    return printable(masked(" ".join(str(problem).split())))[:limit]


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def check_text(option: str, value: str) -> str:
    """Return `value` if it is a text that can be stored and printed.

    Raises:
        OptionError: it is empty, or contains control characters or bytes that are not UTF-8.
    """
    if not value.strip():
        raise OptionError(option, value, "must not be empty")
    if has_control_characters(value):
        raise OptionError(option, value, "must be UTF-8 without control characters")
    return value


def is_file(path: Path) -> bool:
    """Return whether a path is a file that can be found; False for names that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113, pathlib raises for too long names and unreadable folders


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder that can be found; False for names that no folder can have."""
    return os.path.isdir(path)  # noqa: PTH112, see `is_file`


def check_choice(option: str, value: str, choices: Iterable[str], *, or_else: str = "") -> str:
    """Return `value` if it is one of `choices`; `or_else` names other values in the message.

    Raises:
        OptionError: it is not; the message lists the choices and suggests the most similar one.
    """
    names = list(choices)
    if value in names:
        return value
    raise OptionError(
        option, value, f"allowed are {', '.join(names)}{', ' * bool(or_else)}{or_else}{did_you_mean(value, names)}"
    )


def parse_unless(word: str, parse: Callable[..., T], option: str, text: str, *limits: Any) -> T | None:
    """Return None if an option is `word`, such as `auto`, and else what `parse` returns; its errors name the word.

    Args:
        parse: called with the option, the text and `limits`.

    Raises:
        OptionError: the text is neither.
    """
    if text == word:
        return None
    try:
        return parse(option, text, *limits)
    except OptionError as error:
        raise (error.naming(word) if error.option == option else error) from error


def parse_integer(option: str, text: str, low: int, high: int = 10**9) -> int:
    """Parse an option as an integer.

    Raises:
        OptionError: the text is not an integer from `low` to `high`.
    """
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(high))
    if not (digits and low <= int(text) <= high):
        raise OptionError(option, text, f"must be a whole number from {low} to {high}")
    return int(text)


def parse_number(
    option: str,
    text: str,
    *,
    above: float = -math.inf,
    low: float = -math.inf,
    high: float = math.inf,
    unit: str = "",
) -> float:
    """Parse an option as a finite decimal number above `above`, at least `low` and at most `high`.

    `unit` stands behind "a number" in the error message, as in " of F1 points".

    Raises:
        OptionError: the text is not such a number.
    """
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if math.isfinite(value) and above < value and low <= value <= high:
        return value
    bounds = ((f"above {above:g}", above), (f"at least {low:g}", low), (f"at most {high:g}", high))
    allowed = " and ".join(bound for bound, limit in bounds if math.isfinite(limit))
    raise OptionError(option, text, f"must be a number{unit} {allowed}".rstrip())


def number_from_environment(
    variable: str, default: float, *, low: float, high: float = 10**8, whole: bool = False
) -> float:
    """Return the number that an environment variable gives; the default if it is unset or empty.

    Raises:
        OptionError: it is not a number from `low` to `high`.
    """
    text = os.environ.get(variable) or str(default)
    try:
        return (
            parse_integer(variable, text, int(low), int(high))
            if whole
            else parse_number(variable, text, low=low, high=high)
        )
    except OptionError as error:
        raise OptionError(variable, text, f"{error.allowed}; unset the variable for {default:g}") from error


def check_folder(option: str, value: object, path: Path) -> None:
    """Check that an absolute path is a folder or can be created as one.

    Raises:
        OptionError: the path or one of its parents is a file.
    """
    try:
        found = [parent for parent in (path, *path.parents) if parent.exists()]
    except OSError as error:
        raise OptionError(option, value, f"cannot be a folder: {error.strerror}") from error
    if not all(map(is_folder, found)):
        raise OptionError(option, value, "must be a new or existing folder, but it or a parent is a file")


def check_output_folder(option: str, value: object, path: Path) -> None:
    """Check, before work is done for it, that this user can write to an absolute path as a folder, or create it.

    Raises:
        OptionError: it is not.
    """
    check_folder(option, value, path)
    parent = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        problem = f"cannot be written to: no file can be created in {parent} ({error.strerror})"
        raise OptionError(option, value, problem) from error


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


def check_model_name(option: str, name: str) -> str:
    """Return the name of a new registered model if MLflow's Model Registry allows it.

    Raises:
        OptionError: the name is none of `check_name`, or has a colon.
    """
    check_name(option, name)
    if ":" in name:
        raise OptionError(option, name, "must not have a colon: MLflow's Model Registry allows none")
    return name


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """Return a suffix for an error message that suggests the name most similar to `value`; empty if none is."""
    nearest = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f"{_HINT} {nearest[0]!r}?)" if nearest else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type if it has none.

    Lines that end with a colon announce what the next one says, which is added.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    end = next((index for index, line in enumerate(lines) if not line.endswith(":")), len(lines) - 1)
    return " ".join(lines[: end + 1]) or type(error).__name__


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
    """A trial was pruned because others scored better at the same point; the message says when.

    Attributes:
        metrics: metrics of the training until then, by name.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.metrics: dict[str, float] = {}


class MemoryExhausted(RuntimeError):
    """Out of accelerator memory after every fallback; the message lists the fallbacks tried."""

    def __init__(self, text: str) -> None:
        super().__init__(f"out of memory: {text}; use quantization=nf4, a smaller model or a device with more memory")
