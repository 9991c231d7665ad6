"""Parses the option `layers`, which selects the decoder blocks that get an adapter."""

from __future__ import annotations

import re

from whichlora.errors import OptionError

_PART = re.compile(r"(?P<edge>first|last):(?P<n>\d{1,18})|(?P<low>\d{1,18})(?:-(?P<high>\d{1,18}))?", re.ASCII)
_ALLOWED = "all, first:N, last:N, A-B or A, joined by commas"


def parse_layers(text: str, n_layers: int | None = None) -> tuple[int, ...] | None:
    """Return the sorted block numbers that `text` selects, counted from 0.

    `n_layers` is the model's number of decoder blocks. If it is None, only the syntax is checked and None is returned,
    so that a typing error is reported before the model is read.

    Raises:
        OptionError: The syntax is wrong, or a block is not in the model.
    """
    selected: set[int] = set()
    for part in text.split(","):
        if part.strip() == "all":
            selected |= set(range(n_layers or 0))
            continue
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise OptionError("layers", text, f"allowed are {_ALLOWED}")
        if match["edge"]:
            n = int(match["n"])
            if n < 1 or (n_layers is not None and n > n_layers):
                raise OptionError("layers", text, f"N must be from 1 to the model's {n_layers or 'number of'} layers")
            if n_layers is not None:
                selected |= set(range(n) if match["edge"] == "first" else range(n_layers - n, n_layers))
        else:
            low, high = int(match["low"]), int(match["high"] or match["low"])
            if low > high:
                raise OptionError("layers", text, f"the start of a range exceeds its end; allowed are {_ALLOWED}")
            if n_layers is not None and high >= n_layers:
                raise OptionError("layers", text, f"the model has layers 0-{n_layers - 1}")
            if n_layers is not None:
                selected |= set(range(low, high + 1))
    return tuple(sorted(selected)) if n_layers is not None else None
