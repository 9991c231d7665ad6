"""The base model of a run without its weights: where it is, its shape, its tokenizer and its chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whichlora.data.chat import ChatTemplate
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import Task
from whichlora.models.instruct import chat_template
from whichlora.models.loading import ModelShape, ModelSource, load_tokenizer, locate, read_shape

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase  # options are resolved without it


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The base model without its weights.

    Attributes:
        chat_option: the value of the option `chat_template`; None for `auto`.
    """

    source: ModelSource
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    chat_option: str | None

    def chat(self, task: Task) -> ChatTemplate | None:
        """Return the chat template of a task's prompts and answers, or None."""
        return chat_template(task, self.chat_option, self.source, self.tokenizer)

    def encoder(self, task: Task) -> Encoder:
        """Return an encoder of a task for this model."""
        return Encoder(task, self.tokenizer, max_length=self.shape.context, chat=self.chat(task))


def read_base_model(name: str, chat_option: str | None) -> BaseModel:
    """Return a base model by folder, hub id or packaged name.

    Raises:
        OptionError: there is no such model, or it cannot be used.
    """
    source = locate(name)
    return BaseModel(source=source, shape=read_shape(source), tokenizer=load_tokenizer(source), chat_option=chat_option)
