"""Reads conversations: lists of turns with a role and a content, as chat templates take them."""

from __future__ import annotations

from typing import Any

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"} | {
    "human": "user",
    "gpt": "assistant",
    "model": "assistant",
}
"""Roles of turns by their names in data."""


def conversation(turns: Any) -> tuple[list[dict[str, str]], str]:
    """Return the turns before the last one of the assistant, with `role` and `content`, and that one's content.

    Turns are objects with `role` and `content`, or with `from` and `value`; a content may be a list of texts.

    Raises:
        ValueError: there is no such turn, or one has another form.
    """
    read = _turns(turns)
    last = max((n for n, turn in enumerate(read) if turn["role"] == "assistant"), default=0)
    if not last:
        raise ValueError("messages has no answer of the assistant to a turn before it")
    return read[:last], read[last]["content"]


def turns_before_answer(turns: Any) -> list[dict[str, str]]:
    """Return the turns of a conversation that the assistant has yet to answer, with `role` and `content`.

    Raises:
        ValueError: there is none, one has another form, or the last is the assistant's.
    """
    read = _turns(turns)
    if read[-1]["role"] == "assistant":
        raise ValueError("messages ends with a turn of the assistant, whose answer is to be predicted")
    return read


def _turns(turns: Any) -> list[dict[str, str]]:
    if not isinstance(turns, list) or not turns:
        raise ValueError("messages is not a list of turns")
    return [_turn(turn, number) for number, turn in enumerate(turns, 1)]


def _turn(turn: Any, number: int) -> dict[str, str]:
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
    return {"role": ROLES[role.lower()], "content": content}
