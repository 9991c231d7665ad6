"""Gives up the Hugging Face hub at once where there is no network, and retries where a connection is lost.

Its libraries retry for half a minute without a network, and not at all when a connection is reset in a download.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

from whichlora.announcements import announce, announced
from whichlora.errors import first_line, in_a_line

Result = TypeVar("Result")
_PAUSES = (1, 2, 4, 8, 8)
"""Seconds before each repetition after a lost connection, as huggingface_hub waits."""

_NO_CONNECTION = (
    "ConnectError",
    "ConnectTimeout",
    "ProxyError",
    "UnsupportedProtocol",
    "InvalidURL",
    "LocalProtocolError",
)
"""Exceptions of httpx, under whichever name huggingface_hub installs it, that come before the hub has answered."""
_LOST = ("ReadError", "WriteError", "RemoteProtocolError", "ReadTimeout", *_NO_CONNECTION[:2])
"""Exceptions of httpx for a connection that is lost, or not made this time."""


@cache
def hub_problem() -> str | None:
    """Return why the Hugging Face hub cannot be used; None if it answers.

    It is asked once in a process, for at most the seconds of `HF_HUB_ETAG_TIMEOUT`. If it cannot be reached, the
    libraries read their caches only, in this process and in those that it starts.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "the Hugging Face hub is not used, since HF_HUB_OFFLINE is set"
    with announced(f"Connecting to {constants.ENDPOINT}."):
        problem = _connection_problem(constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT)
    if problem is None:
        return None
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True
    return f"the Hugging Face hub cannot be reached: {constants.ENDPOINT}: {problem}"


def retried(work: Callable[[], Result], what: str) -> Result:
    """Return `work()`, repeated while the connection to the hub is lost; a download continues where it stopped.

    Args:
        what: what is read from the hub, for the line that says so.
    """
    for number, pause in enumerate(_PAUSES, 1):
        try:
            return work()
        except Exception as error:
            lost = _lost_connection(error)
            if lost is None or hub_problem() is not None:
                raise
            place = f"retry {number} of {len(_PAUSES)} in {pause} s"
            text = f"The connection to the Hugging Face hub was lost ({_reason(lost)}) while reading {what}: {place}."
            print(in_a_line(text), file=sys.stderr)
            time.sleep(pause)
    return work()


def _lost_connection(error: BaseException) -> BaseException | None:
    """Return the lost connection among an error and its causes; None if there is none."""
    return next((cause for cause in _causes(error) if type(cause).__name__ in _LOST), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def announce_cached(what: str) -> None:
    """Say that a model or dataset comes from the cache, if the hub is away; nothing where the user wants that."""
    problem = hub_problem()
    if problem is not None and "HF_HUB_OFFLINE" not in problem:
        announce(f"{problem[0].upper()}{problem[1:]}. The copy of {what} in the cache is used.")


def _connection_problem(address: str, seconds: float) -> str | None:
    """Return why a server does not answer within some seconds, or None if it does, whatever it answers.

    A socket's time limit applies to each address of the server by itself, and not to the DNS lookup, so a thread asks
    and is abandoned when the time is up.
    """
    found: list[str | None] = []

    def ask() -> None:
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

        try:
            get_session().head(address, timeout=seconds)
            found.append(None)
        except Exception as error:
            found.append(_reason(error) if type(error).__name__ in _NO_CONNECTION else None)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"no answer within {seconds:g} s"


def _reason(error: BaseException) -> str:
    """Return the reason of an error without the number that Python puts before it."""
    return first_line(error).rpartition("] ")[2]
