"""Scores answers that are texts of each item, such as the endings of a story, by mean log-likelihood per token.

A choice may be likely whatever it follows: its words are frequent, or it is well formed. The control scores the same
tokens after the prompt without the premise, as in the domain-conditional PMI of Holtzman et al. 2021 (arXiv
2104.08315).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whichlora.data.encoding import Encoded, Encoder, word_tokens
from whichlora.data.tasks.items import Item
from whichlora.evaluation.finite import check_labels
from whichlora.evaluation.likelihood import answer_log_likelihood


@dataclass(frozen=True, kw_only=True)
class ChoiceScores:
    """Mean log-likelihoods per token of the choices of items, (items, choices).

    Attributes:
        given: after the prompt.
        alone: after the prompt of the control; None if the task has none.
    """

    given: np.ndarray[Any, Any]
    alone: np.ndarray[Any, Any] | None


def choice_scores(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> ChoiceScores:
    """Return the scores of the choices of each item, in the order of the labels; `name` is on the progress bar.

    Raises:
        NonFiniteError: a log-likelihood is not finite.
    """
    choices = [[encoder.answer(item, word) for word in encoder.task.label_words(item)] for item in items]
    given = _means(model, encoder, items, [encoder.prompt(item) for item in items], choices, name=name)
    controls = [control for item in items if (control := encoder.task.control(item))]
    if not controls:
        return ChoiceScores(given=given, alone=None)
    prompts = [_control_prompt(encoder, control) for control in controls]
    alone = _means(model, encoder, items, prompts, choices, name=f"{name}, control")
    return ChoiceScores(given=given, alone=alone)


def _means(
    model: Any,
    encoder: Encoder,
    items: Sequence[Item],
    prompts: Sequence[list[int]],
    choices: Sequence[Sequence[list[int]]],
    *,
    name: str,
) -> np.ndarray[Any, Any]:
    """Return the mean log-likelihood per token of each choice after the prompt of its item, (items, choices)."""
    examples = [Encoded(prompt, ids) for prompt, own in zip(prompts, choices, strict=True) for ids in own]
    sums = answer_log_likelihood(model, encoder, examples, name=name)
    means = (sums / [len(example.answer) for example in examples]).reshape(len(items), -1)
    check_labels(means, items, what=f"the {encoder.task.name} log-likelihoods", name=name)
    return means


def _control_prompt(encoder: Encoder, item: Item) -> list[int]:
    """Return the token ids of a control's prompt, which may be empty: without a chat template, a token begins it."""
    if encoder.chat is not None:
        return encoder.prompt(item)
    return word_tokens(encoder.tokenizer, encoder.prompt_text(item).lstrip())
