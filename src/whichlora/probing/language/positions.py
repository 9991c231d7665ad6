"""Tokenizes the items of a task and selects the positions that the language probe decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from whichlora.data.encoding import Encoder, special_ids
from whichlora.data.tasks import Item
from whichlora.data.tasks.items import texts_of
from whichlora.errors import OptionError
from whichlora.evaluation.answer_ends import end_tokens
from whichlora.evaluation.generation import decoding_of, greedy_continuations

NEW_TOKENS = 64
"""Maximum number of generated tokens, as in Zhao et al. 2024."""


class PositionSelector:
    """Tokenizes items and selects positions; a QA item that is too long for one prompt is cut to its first window."""

    def __init__(self, encoder: Encoder, *, positions: str, special_tokens: str) -> None:
        """Create a selector; `positions` is one of `options.POSITIONS`, `special_tokens` is drop or keep.

        Raises:
            OptionError: `positions` is item, and the tokenizer cannot map tokens to characters.
        """
        if positions == "item" and not encoder.tokenizer.is_fast:
            raise OptionError("positions", positions, "needs a fast tokenizer; allowed are all, last, generated")
        self._encoder, self._positions = encoder, positions
        self._dropped = special_ids(encoder.tokenizer) if special_tokens == "drop" else frozenset()

    def select(self, items: Sequence[Item], model: Any) -> tuple[list[list[int]], list[list[int]]]:
        """Return the token ids of each item and the selected positions in them.

        With `positions` generated, the ids include the continuation that `model` generates.

        Raises:
            OptionError: an item is longer than the model's context.
        """
        sequences, positions = [], []
        for item in items:
            window = self._encoder.windows(item)[0]
            ids = self._encoder.prompt(window)
            if self._positions == "generated":
                ids = self._generate(ids, model)
            selected: Sequence[int] = self._item_positions(window) if self._positions == "item" else range(len(ids))
            kept = [position for position in selected if ids[position] not in self._dropped]
            sequences.append(ids)
            positions.append(kept[-1:] if self._positions == "last" else kept)
        return sequences, positions

    def _generate(self, ids: list[int], model: Any) -> list[int]:
        prompt = torch.tensor([ids], device=model.device)
        tokenizer = self._encoder.tokenizer
        with torch.inference_mode():
            (output,) = greedy_continuations(
                model,
                prompt,
                torch.ones_like(prompt),
                tokenizer.pad_token_id,
                new_tokens=NEW_TOKENS,
                ends=end_tokens(model, tokenizer),
                use_cache=decoding_of(model).cached,
            )
        continued: list[int] = output.tolist()
        return continued

    def _item_positions(self, item: Item) -> list[int]:
        """Return the positions of tokens that contain characters of the item's texts rather than of the instruction."""
        text = self._encoder.prompt_text(item)
        spans, end = [], len(text)
        for part in reversed(texts_of(item)):
            # A declared prompt may have the texts in another order or leave one out; chat templates strip white space.
            part = part if part in text else part.strip()
            start = text.rfind(part, 0, end if part in text[:end] else len(text))
            if start >= 0:
                spans.append((start, start + len(part)))
                end = start
        offsets = self._encoder.tokenizer(
            text, add_special_tokens=self._encoder.chat is None, return_offsets_mapping=True, verbose=False
        ).offset_mapping
        return [
            position
            for position, (start, end) in enumerate(offsets)
            if any(max(start, span_start) < min(end, span_end) for span_start, span_end in spans)
        ]
