"""Packs texts into one row of tokens without padding, in which shared prefixes are computed once.

Linear layers, norms and adapters process each token independently, so only attention depends on which tokens form a
text. Before attention the row is gathered into one padded row per text, where the tokens of a shared prefix are
repeated, and transformers' own attention function runs on these. Losses summed over texts, and their gradients, equal
those of padded batches.

`families` says which models are packed, `rows` packs texts, `switch` makes a model read packed rows, `text_attention`
is what it then computes, `own_attention` leads there from architectures that do not use transformers' interface, and
`cache` fills the cache of `generate`.
"""

from whichlora.models.packing.cache import prefill
from whichlora.models.packing.families import can_pack, can_share_prefixes, is_tested, reason_to_pad
from whichlora.models.packing.rows import join, pack, pack_texts
from whichlora.models.packing.switch import attention

__all__ = [
    "attention",
    "can_pack",
    "can_share_prefixes",
    "is_tested",
    "join",
    "pack",
    "pack_texts",
    "prefill",
    "reason_to_pad",
]
