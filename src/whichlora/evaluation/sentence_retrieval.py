"""Retrieves the translations of sentences by pooled hidden states of one layer, as XTREME-R does with Tatoeba."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from whichlora.data.encoding import Encoder
from whichlora.data.tasks.items import Item, PairItem
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation.finite import check_states
from whichlora.evaluation.translation_similarity import CSLS_MEASURES, MEASURES, compare, compare_by_csls, nearest
from whichlora.evaluation.word_states import layer_states


def retrieve(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> tuple[list[str], dict[str, np.ndarray[Any, Any]]]:
    """Return for each English sentence the translation with the highest raw cosine, and the measures by name, (items,).

    Of tied translations it is the first. The measures are those of the alignment probe; those of random pairs are NaN
    if all pairs are the same.

    Raises:
        NonFiniteError: A state is not finite, or zero.
    """
    states = layer_states(model, encoder, items, pooling, name=name)
    check_states(states, items, name=name)
    pairs = [(item.word, item.translation) for item in items if isinstance(item, PairItem)]
    values = np.concatenate([compare(states, pairs), compare_by_csls(states, pairs)], axis=1)
    retrieved = nearest(states[:, 0], states[:, 1], centred=False)
    return [pairs[i][1] for i in retrieved], dict(zip((*MEASURES, *CSLS_MEASURES), values.T, strict=True))
