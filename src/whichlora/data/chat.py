"""Chat templates: an item as a conversation whose last turn, the assistant's, is the answer.

The prompt is the conversation before that turn, rendered with its header (`add_generation_prompt`) and without
thinking: an empty think block belongs to the prompt. What the template writes between header and answer, and after the
answer up to the token that ends the turn, is found by rendering a conversation that is answered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from whichlora.errors import first_line, is_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""A turn of a conversation: its `role` (system, user or assistant) and its `content`."""
NONE = "none"
"""The name of no chat template, in options, declarations and specs."""
_QUESTION, _ANSWER = "question", "e5f1answer"
_TODAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri"}
"""The date that a template gets when it asks for today's: prompts must not change by the day."""


class ChatTemplate:
    """A chat template with the tokenizer that it is for.

    Attributes:
        text: the Jinja template.
        separator: white space between a prompt and its answer.
        end: text after an answer, up to and including the token that ends the turn; empty without such a token.
        end_token: the id of the token that ends the assistant's turn, or None.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        """Analyse a template.

        Raises:
            ValueError: it is no template, or does not render a question and its answer.
        """
        self.text = text
        self._tokenizer, self._header = tokenizer, ""
        question = [{"role": "user", "content": _QUESTION}]
        prompt = self.prompt(question)
        whole = self._render([*question, {"role": "assistant", "content": _ANSWER}], add_generation_prompt=False)
        before, found, after = whole.rpartition(_ANSWER)
        if not found or _QUESTION not in prompt:
            raise ValueError("leaves out a turn of a conversation")
        between = before[len(prompt) :] if before.startswith(prompt) else ""
        self._header = between.rstrip(" ") if between.strip() else ""  # of templates without a generation prompt
        self.separator = between[len(self._header) :]
        self.end, self.end_token = self._end(after)

    def prompt(self, turns: Sequence[Message]) -> str:
        """Return the text of a conversation, up to the beginning of the assistant's answer.

        Raises:
            ValueError: the template refuses these turns; the message says why.
        """
        return self._render(turns, add_generation_prompt=True) + self._header

    @property
    def digest(self) -> str:
        """The beginning of the SHA-256 of the template."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    def _render(self, turns: Sequence[Message], *, add_generation_prompt: bool) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                chat_template=_dated(self.text),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
            )
        except Exception as error:  # the template's own code may raise anything
            raise ValueError(first_line(error)) from error
        return str(text)

    def _end(self, after: str) -> tuple[str, int | None]:
        tokens = {added.content: i for i, added in self._tokenizer.added_tokens_decoder.items() if added.special}
        tokens[str(self._tokenizer.eos_token)] = int(self._tokenizer.eos_token_id)  # type: ignore[arg-type]
        found = [(after.find(token), -len(token), token) for token in tokens if token in after]
        if not found:
            return "", None
        start, _, token = min(found)
        return after[: start + len(token)], tokens[token]


def transcript(turns: Sequence[Message]) -> str:
    """Return a conversation as plain text, which ends where the assistant's answer begins: for models without a chat
    template.
    """
    headings = {"user": "User: ", "assistant": "Assistant: "}
    return "\n".join([*(headings.get(turn["role"], "") + turn["content"] for turn in turns), "Assistant:"])


def read_template(path: Path) -> str:
    """Return the text of a file with a chat template.

    Raises:
        ValueError: it cannot be read.
    """
    if not is_file(path):  # reading a pipe would wait for ever
        raise ValueError("is not a file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"cannot be read ({reason})") from error


def _dated(text: str) -> str:
    """Return a template in which `strftime_now` returns the same date every day."""
    if "strftime_now" not in text:
        return text
    replaced = "".join(f"|replace('{code}', '{value}')" for code, value in _TODAY.items())
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{text}"
