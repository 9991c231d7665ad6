"""Errors a person can act on: bad options, and runs that did not train what was asked for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class OptionError(ValueError):
    """A bad option: names the option, the value given and what is allowed, in one line."""

    def __init__(self, option: str, value: object, allowed: str) -> None:
        self.option, self.value, self.allowed = option, value, allowed
        super().__init__(" ".join(f"{option}={value}: {allowed}".split("\n")))


def choose(option: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, else raise `OptionError` with the nearest match."""
    names = list(choices)
    if value in names:
        return value
    raise OptionError(option, value, f"allowed are {', '.join(names)}{did_you_mean(value, names)}")


def parse_whole(option: str, text: str, low: int, high: int = 10**9) -> int:
    """Return the number that an option's text stands for, whole and from `low` to `high`, or raise `OptionError`."""
    if not (text.isdecimal() and len(text) <= len(str(high)) and low <= int(text) <= high):
        raise OptionError(option, text, f"must be a whole number from {low} to {high}")
    return int(text)


def check_folder(option: str, value: object, path: Path) -> None:
    """Raise `OptionError` if an absolute path can be no folder, new or not, because a file is in the way."""
    if any(place.exists() and not place.is_dir() for place in (path, *path.parents)):
        raise OptionError(option, value, "must be a folder, which may be new; a file is in the way")


def did_you_mean(value: str, names: Iterable[str]) -> str:
    """Return a hint at the name nearest to `value`, to put behind a sentence; empty where none is near."""
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


class ProofError(RuntimeError):
    """A run did not train what its spec says; the message gives the evidence."""


class LostClaimError(RuntimeError):
    """This process was taken for dead, and its work given to another."""


class PrunedError(RuntimeError):
    """A trial was stopped early, because others had done better by then; the message says when."""


class MemoryExhausted(RuntimeError):
    """The accelerator's memory does not suffice, whatever was tried; the message says what that was."""

    def __init__(self, text: str) -> None:
        super().__init__(f"out of memory: {text}; take quantization=nf4, a smaller model or more memory")
