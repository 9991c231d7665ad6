"""What a probe reads of a task's items: their token ids, and the positions that are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import Item
from whichlora.data.tasks.items import texts_of
from whichlora.errors import OptionError

NEW_TOKENS = 64
"""The most that are generated, as in Zhao et al. 2024."""


class Reader:
    """Reads items with a model's tokenizer. A QA item that is too long for one prompt is read in its first window."""

    def __init__(self, encoder: Encoder, *, positions: str, special_tokens: str) -> None:
        """`positions` is one of `options.POSITIONS`, `special_tokens` is drop or keep.

        Raises:
            OptionError: the tokenizer cannot tell which tokens are the item's own.
        """
        if positions == "item" and not encoder.tokenizer.is_fast:
            raise OptionError("positions", positions, "needs a fast tokenizer; allowed are all, last, generated")
        self._encoder, self._positions = encoder, positions
        self._dropped = special_ids(encoder.tokenizer) if special_tokens == "drop" else frozenset()

    def read(self, items: Sequence[Item], model: Any) -> tuple[list[list[int]], list[list[int]]]:
        """Return for each item its token ids, and the positions in them that are looked at.

        `model` writes on where the positions are `generated`.

        Raises:
            OptionError: an item is longer than the model's context.
        """
        sequences, positions = [], []
        for item in items:
            shown = self._encoder.windows(item)[0]
            ids = self._encoder.prompt(shown)
            if self._positions == "generated":
                ids = self._continued(ids, model)
            wanted: Sequence[int] = range(len(ids))
            if self._positions == "item":
                wanted = self._own(shown)
            elif self._positions == "last":
                wanted = wanted[-1:]
            sequences.append(ids)
            positions.append([position for position in wanted if ids[position] not in self._dropped])
        return sequences, positions

    def _continued(self, ids: list[int], model: Any) -> list[int]:
        prompt = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            (output,) = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=self._encoder.tokenizer.pad_token_id,
            )
        written: list[int] = output.tolist()
        return written

    def _own(self, item: Item) -> list[int]:
        """Return the positions that hold characters of the item's own texts, and not of the instruction around them."""
        text = self._encoder.task.prompt(item)
        spans, end = [], len(text)
        for own in reversed(texts_of(item)):
            start = text.rindex(own, 0, end)
            spans.append((start, start + len(own)))
            end = start
        offsets = self._encoder.tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
        return [
            position
            for position, (start, end) in enumerate(offsets)
            if any(max(start, first) < min(end, past) for first, past in spans)
        ]


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that decoding with `skip_special_tokens` leaves out: more than those with a role, such as BOS.

    A tokenizer may flag others in its file (SmolLM2's `<repo_name>`), which its `all_special_ids` does not name.
    """
    flagged = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return frozenset(flagged.union(tokenizer.all_special_ids))
