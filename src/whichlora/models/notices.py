"""Names the files of a licence, and words the notice that some licences demand beside what is made from a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from whichlora.errors import one_line

NOTICE = "NOTICE"
_DOCUMENT = re.compile(
    r"((un)?licen[cs]e|copying|copyright|notice|([^.]*[_-])?(terms|use[_-]policy))([_-][^.]*(\.\d+)*)?"
    r"(\.(txt|md|rst|html|pdf))?",
    re.IGNORECASE,
)
SENTENCES: Mapping[str, str] = {
    "gemma": "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
}
"""Sentences that a notice must contain, by the licence's name on the hub (Gemma Terms of Use, section 3.1)."""
_RESTRICTIONS: Mapping[str, str] = {
    "gemma": (
        "The use restrictions in section 3.2 of these terms, among them the Gemma Prohibited Use Policy\n"
        "(ai.google.dev/gemma/prohibited_use_policy), apply to the files in this folder and to whatever is made from\n"
        "them. Whoever passes them on must pass on the terms, this notice and the restrictions."
    ),
}


def is_document(name: str) -> bool:
    """Return whether a file is by its name a licence, a notice or terms of use: they are passed on with weights."""
    return _DOCUMENT.fullmatch(name) is not None


Change = Literal["converted", "adapter", "model", "merged"]
"""What was done to the base: converted only, trained as an adapter, trained in full, or merged with an adapter."""
_CHANGES: Mapping[Change, str] = {
    "converted": "The weights in this folder were converted from {origin}, and not trained.",
    "adapter": "The weights in this folder are an adapter, made by training on top of {origin}.",
    "model": "The weights in this folder were modified: they are those of {origin} after training.",
    "merged": "The weights in this folder were modified: an adapter was merged into those of {origin}.",
}


def notice(licence: str | None, origin: str, change: Change, note: str = "") -> str | None:
    """Return the text of a notice, or None if the licence demands none.

    Args:
        origin: name of the base model.
        note: how the base model differs from the one of that name; empty if it does not.
    """
    if licence is None or licence not in SENTENCES:
        return None
    parts = [SENTENCES[licence], _RESTRICTIONS[licence], _CHANGES[change].format(origin=one_line(origin)), note]
    return "\n\n".join(part for part in parts if part) + "\n"
