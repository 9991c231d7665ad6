"""Writes what lies beside an adapter's weights for those who load it without whichlora: model card and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CARD = "README.md"
_TOKENIZER = "tokenizer.json"
_TEMPLATE = "chat_template.jinja"


def write_card(folder: Path, text: str) -> None:
    """Write a model card to a folder, in the place of PEFT's, which is a form that nobody has filled in."""
    (folder / CARD).write_text(text, encoding="utf-8")


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> None:
    """Write the files of a tokenizer to a folder, with the chat template of the prompts, if they had one.

    A tokenizer's own template is written too if the prompts did not use it: it is part of the tokenizer.
    """
    tokenizer.save_pretrained(folder)
    if (folder / _TOKENIZER).is_file() and tokenizer.is_fast:
        # Not indented: with a vocabulary of 262,144 tokens that takes 14 MB in place of 33.
        tokenizer.backend_tokenizer.save(str(folder / _TOKENIZER), pretty=False)
    if chat_template is not None:
        (folder / _TEMPLATE).write_text(chat_template, encoding="utf-8")
