"""Builds the tokenizers of packaged models from the metadata of their GGUF files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

_CONTROL, _USER_DEFINED = 3, 4
_SPACE = "\u2581"


def digits_and_bytes(field: Callable[[str], Any]) -> Tokenizer:
    """Return the tokenizer that `tokenizer.ggml.pre = smollm` names: byte-level, with digits split before all else."""
    tokens = field("tokens")
    merges = [tuple(pair.split(" ")) for pair in field("merges")]
    tokenizer = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_special(tokens, field("token_type")))
    return tokenizer


def gemma(field: Callable[[str], Any]) -> Tokenizer:
    """Return the tokenizer of Gemma, SentencePiece's BPE with bytes for unknown characters and BOS before a text.

    The file spells runs of spaces as spaces, and has no merges. They follow from the vocabulary: pieces are joined in
    the order of the ids of what they make, as by SentencePiece, whose scores in this vocabulary fall with the ids.
    """
    stored, kinds = field("tokens"), field("token_type")
    tokens = [_SPACE * len(token) if " " in token and not token.strip() else token for token in stored]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    unknown, bos = stored[field("unknown_token_id")], field("bos_token_id")
    model = BPE(vocabulary, list(_merges(tokens, vocabulary)), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(_special(tokens, kinds))
    # Such as runs of newlines, which nothing splits or joins.
    whole = [t for t, kind in zip(stored, kinds, strict=True) if kind == _USER_DEFINED and t in vocabulary]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in whole])
    if field("add_bos_token"):
        first = stored[bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A {first}:1 $B:1", special_tokens=[(first, bos)]
        )
    return tokenizer


def _special(tokens: Sequence[str], kinds: Sequence[int]) -> list[AddedToken]:
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    return [AddedToken(token, normalized=False, special=True) for token in control]


def _merges(tokens: Sequence[str], vocabulary: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of pieces that make a piece, in the order of the ids of the pieces that they make."""
    for token in tokens:
        for i in range(len(token) - 1, 0, -1):
            if token[:i] in vocabulary and token[i:] in vocabulary:
                yield token[:i], token[i:]
