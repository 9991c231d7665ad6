"""Divides general text into what a model reads at a time."""

from __future__ import annotations

from whichlora.data.encoding import Encoded, Encoder, added_tokens

WINDOW = 1024
"""Tokens of a block that are read together at most, or the model's context if that is less. A longer block is read in
windows that overlap by half: each token after the first window is predicted from at least 512 others."""
MEASURE = f"cross-entropy-1-{WINDOW}"
"""Identifies what is measured, as part of the fingerprints of results. Increment the number with every change."""


def windows(encoder: Encoder, block: str) -> list[Encoded]:
    """Return the parts of a block to read: tokens that are only read, then those that are predicted from them."""
    added = added_tokens(encoder.tokenizer)
    before = list(added.before) if added else []
    ids = [*before, *encoder.tokenizer(block, add_special_tokens=False, verbose=False).input_ids]
    length = min(WINDOW, encoder.max_length or WINDOW)
    start = max(1, len(before))
    parts = [Encoded(ids[:start], ids[start:length])]
    for end in range(length, len(ids), length - length // 2):
        parts.append(Encoded(ids[end - length // 2 : end], ids[end : end + length - length // 2]))
    return [part for part in parts if part.answer]
