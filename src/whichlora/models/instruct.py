"""Tells instruct models from base models, and finds the chat template of a task's prompts for a model."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

from whichlora.caller import given_path
from whichlora.data.chat import NONE, ChatTemplate, read_template
from whichlora.data.tasks import Task
from whichlora.errors import OptionError, first_line
from whichlora.models.loading import ModelSource, read_config
from whichlora.models.quiet import without_log_of_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat_template(
    task: Task, option: str | None, source: ModelSource, tokenizer: PreTrainedTokenizerBase
) -> ChatTemplate | None:
    """Return the chat template of a task's prompts and answers, or None for plain texts.

    Args:
        option: the value of the option `chat_template`, which overrides what the task says; None for `auto`.

    Raises:
        OptionError: a file cannot be read, or is no chat template.
    """
    choice = option or task.chat_template
    if choice == "auto":
        return _own_template(source, tokenizer)
    return None if choice == NONE else _from_file(choice, tokenizer)


@lru_cache(maxsize=4)
def _own_template(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
    """Return the tokenizer's own template if the model is an instruct model, or None.

    Base models such as Qwen3-8B-Base come with a template too. A model was trained for conversations if the token that
    ends the assistant's turn in the template is one with which its answers end.
    """
    if not tokenizer.chat_template:
        return None
    try:
        template = ChatTemplate(tokenizer, tokenizer.get_chat_template())
    except ValueError as error:  # several without a default, or one that does not render a question and its answer
        warnings.warn(
            f"model={source.name}: its chat template is not used, so that prompts are plain texts: {first_line(error)}",
            stacklevel=2,
        )
        return None
    return template if template.end_token in _declared_ends(source, tokenizer) else None


def _declared_ends(source: ModelSource, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the end tokens that the tokenizer, config.json and generation_config.json declare."""
    from transformers import GenerationConfig

    declared = [tokenizer.eos_token_id, read_config(source).get_text_config().eos_token_id]
    try:
        with without_log_of_transformers():
            generation = GenerationConfig.from_pretrained(source.name_or_path, revision=source.revision)
    except (OSError, ValueError):  # there is no such file, or it is damaged
        generation = GenerationConfig()
    declared.append(generation.eos_token_id)
    ends: set[int] = set()
    for value in declared:
        ends.update([value] if isinstance(value, int) else value or ())
    return ends


def _from_file(file: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    try:
        return _template(read_template(given_path(file)), tokenizer)
    except ValueError as error:
        raise OptionError("chat_template", file, f"is no chat template for this model ({error})") from error


@lru_cache(maxsize=4)
def _template(text: str, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    return ChatTemplate(tokenizer, text)
