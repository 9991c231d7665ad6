"""The task `align-words`: make the hidden states of a word and of its translation similar at one layer.

Targeted lexical injection (arXiv 2506.15415), with the controls that the paper lacks. There is no prompt and no
generation: training and scoring use the hidden states of both words (`models.pooling`). Control pairs are scored but
not trained on, and share no word with trained pairs.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from whichlora.caller import given_path
from whichlora.data.tasks import files, pairs
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS, PairTask, Sizes, Split
from whichlora.data.tasks.items import Item, PairItem
from whichlora.errors import check_choice, is_file

HELD_OUT = 63
"""Number of control pairs in test, as in the paper, and in validation; each has at most a sixth of all pairs."""


class AlignWords(PairTask):
    """Word pairs of English and a target language: the packaged ones, or `en-LANGUAGE.tsv` in the folder `data_dir`.

    An item belongs to both languages, so English has no items of its own.
    """

    name = "align-words"
    languages = (SOURCE_LANGUAGE, *pairs.LANGUAGES)
    pooled = ("ur", "sw", "hi")
    headline = "pooled/cosine/gap/centred"
    sizes = Sizes(train=256, validation=HELD_OUT, test=HELD_OUT)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[PairItem, ...]:
        """Return the pairs of a split, in the order of the file; none in English.

        Raises:
            OptionError: the file cannot be read.
        """
        check_choice("language", language, self.languages)
        check_choice("split", split, SPLITS)
        check_choice("difficulty", difficulty, self.difficulties)
        if language == SOURCE_LANGUAGE:
            return ()
        word_pairs = _pairs(language, data_dir)
        return tuple(
            PairItem(
                index=index,
                id=f"{language}-{position}",
                language=language,
                stratum="",
                word=word_pairs[position][0],
                translation=word_pairs[position][1],
            )
            for index, position in enumerate(split_pairs(word_pairs)[split])
        )

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        path = None if data_dir is None else pairs_path(language, data_dir).absolute()
        return {str(path): files.digest(path)} if path is not None and is_file(path) else {}

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return the micro-F1 of retrieving each word's translation from the set; equal to P@1 if each has one."""
        return {"f1": sum(p in answers for p, answers in zip(predicted, gold, strict=True)) / len(gold)}

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the expected scores of random retrieval: P@1 as `p1` and the mean reciprocal rank as `mrr`."""
        n = len(test)
        return {"p1": 1 / n, "mrr": sum(1 / rank for rank in range(1, n + 1)) / n} if n else {}


def pairs_path(language: str, data_dir: str) -> Path:
    """Return the path of the file with pairs of English and a language in a folder; it may not exist."""
    return given_path(data_dir) / f"en-{language}.tsv"


def _pairs(language: str, data_dir: str | None) -> list[pairs.Pair]:
    """Return the folder's pairs; the packaged ones if it has none, as when it contains only a retention task's data."""
    if data_dir is not None and is_file(pairs_path(language, data_dir)):
        return pairs.from_file(str(pairs_path(language, data_dir)), option="data_dir")
    return pairs.packaged(language)


def split_pairs(word_pairs: Sequence[pairs.Pair]) -> dict[Split, list[int]]:
    """Return the positions of the pairs of each split, the same for every seed.

    Pairs that share a word, in either language and regardless of case, stay in one split. Groups that fit into neither
    held-out split go to train.
    """
    groups = _groups(word_pairs)
    random.Random("align-words").shuffle(groups)
    size = min(HELD_OUT, len(word_pairs) // 6)
    positions_of: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for group in groups:
        held_out: tuple[Split, ...] = ("test", "validation")
        fitting = (split for split in held_out if len(positions_of[split]) + len(group) <= size)
        positions_of[next(fitting, "train")] += group
    return {split: sorted(positions) for split, positions in positions_of.items()}


def _groups(word_pairs: Sequence[pairs.Pair]) -> list[list[int]]:
    """Return the positions of pairs, grouped into connected components by shared words."""
    parent = list(range(len(word_pairs)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first_with: dict[str, int] = {}
    for position, pair in enumerate(word_pairs):
        for word in casefolded_words(pair):
            parent[root(position)] = root(first_with.setdefault(word, position))
    groups: dict[int, list[int]] = defaultdict(list)
    for position in range(len(word_pairs)):
        groups[root(position)].append(position)
    return list(groups.values())


def casefolded_words(pair: pairs.Pair) -> set[str]:
    """Return the words of both texts, NFKC-normalised and case-folded."""
    return {word for text in pair for word in unicodedata.normalize("NFKC", text).casefold().split()}
