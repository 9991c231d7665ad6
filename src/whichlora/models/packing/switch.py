"""Makes a model read packed rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from whichlora.models.packing.own_attention import led_to_attend
from whichlora.models.packing.text_attention import NAME


@contextmanager
def attention(model: Any) -> Iterator[None]:
    """Switch a model to attention within packed texts inside this context.

    The context must include the backward pass, in which gradient checkpointing repeats the forward pass.
    """
    config = model.config.get_text_config()
    previous = config._attn_implementation
    config._attn_implementation = NAME
    try:
        with led_to_attend(model):
            yield
    finally:
        config._attn_implementation = previous
