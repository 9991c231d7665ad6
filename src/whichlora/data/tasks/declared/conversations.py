"""Reads conversations: lists of turns with a role and a content, as chat templates take them."""

from __future__ import annotations

from typing import Any

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"} | {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
}
"""Roles of turns by their names in data."""


def conversation(turns: Any) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return the turns before the last one of the assistant, each a role and a text, and that one's text.

    Turns are objects with `role` and `content`, or with `from` and `value`; a content may be a list of texts.

    Raises:
        ValueError: there is no such turn, or one has another form.
    """
    if not isinstance(turns, list) or not turns:
        raise ValueError("messages is not a list of turns")
    read = [_turn(turn, number) for number, turn in enumerate(turns, 1)]
    last = max((n for n, (role, _) in enumerate(read) if role == "assistant"), default=0)
    if not last:
        raise ValueError("messages has no answer of the assistant to a turn before it")
    return tuple(read[:last]), read[last][1]


def _turn(turn: Any, number: int) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"messages: turn {number} is not an object with role and content")
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(parts) else None
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise ValueError(f"messages: turn {number} has the role {role!r}; allowed are {', '.join(ROLES)}")
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"messages: turn {number} has no text")
    return ROLES[role.lower()], content
