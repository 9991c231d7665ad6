"""Masks passwords in whatever is printed or stored: addresses of servers and databases contain them."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO
from urllib.parse import unquote

MASK = "***"
# A password may contain any character but a space or a quotation mark, so it ends at the last @.
_PASSWORD = re.compile(r"(?P<kept>[A-Za-z][\w+.-]*://[^\s:/@'\"]*:)(?P<secret>[^\s'\"]+)(?=@)")
_TOKEN = re.compile(r"(?P<kept>https?://)(?P<secret>[^\s:/@'\"]+)(?=@)")
_NAMED = re.compile(r"(?P<kept>(?:password|passwd|pwd)=)(?P<secret>'[^']*'|\"[^\"]*\"|[^\s&;,)'\"]+)", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|SECRET|TOKEN|SECRET_KEY|ACCESS_KEY|API_KEY)$")
_SHORTEST = 6
"""Length from which the values of secrets are looked for anywhere in a text; shorter ones could be other words."""


def masked(text: object) -> str:
    """Return a text with `***` in place of passwords.

    Passwords are those in addresses (`postgresql://user:password@host`, `https://token@host`, `?password=...`), and
    those in environment variables, wherever they appear.
    """
    result = str(text)
    for pattern in (_PASSWORD, _TOKEN, _NAMED):
        result = pattern.sub(rf"\g<kept>{MASK}", result)
    for secret in _secrets():
        result = result.replace(secret, MASK)
    return result


def mask_output() -> None:
    """Mask what this process prints from now on, tracebacks and logs included."""
    if not isinstance(sys.stdout, _Masked):
        sys.stdout, sys.stderr = _Masked(sys.stdout), _Masked(sys.stderr)  # type: ignore[assignment]


def _secrets() -> list[str]:
    """Return the passwords in environment variables, longest first."""
    found = set()
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name):
            found.add(value)
        for match in _PASSWORD.finditer(value):
            found |= {match["secret"], unquote(match["secret"])}
    return sorted((secret for secret in found if len(secret) >= _SHORTEST), key=len, reverse=True)


class _Masked:
    """A text stream that masks what is written to another one.

    What is written to a terminal that has been closed is dropped: a command that goes on without it, because it
    finishes a step or was disowned by its shell, must not fail for want of a reader.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # by this error click recognises a text stream
            raise TypeError("write() argument must be str")
        with self._closed_terminal_dropped():
            self._stream.write(masked(text))
        return len(text)

    def flush(self) -> None:
        with self._closed_terminal_dropped():
            self._stream.flush()

    @contextmanager
    def _closed_terminal_dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._terminal or error.errno != errno.EIO:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
