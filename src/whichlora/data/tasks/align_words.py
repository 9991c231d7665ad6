"""The task `align-words`: a word and its translation shall have alike states at some layer of the model.

Targeted lexical injection (arXiv 2506.15415) with the controls that it lacked. Nothing is prompted or written: pairs of
words are read, and what is trained and scored are the states of both (see `pooling.py`). Pairs that are scored without
having been trained, the control pairs, share no word with trained ones.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from whichlora.data.tasks import pairs
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS, PairTask, Sizes, Split
from whichlora.data.tasks.items import Item, PairItem
from whichlora.errors import choose

HELD_OUT = 63
"""Control pairs for the test, as in the original, and as many for validation; of fewer pairs a sixth."""


class AlignWords(PairTask):
    """Word pairs of English and a target language: the packaged ones, or `en-LANGUAGE.tsv` in the folder `data_dir`.

    An item is in both languages at once, so there are no items in English alone.
    """

    name = "align-words"
    languages = (SOURCE_LANGUAGE, *pairs.LANGUAGES)
    pooled = ("ur", "sw", "hi")
    parallel = False
    headline = "pooled/cosine/gap/centred"
    prompt_version = "pairs-1"
    answer_tokens = 0
    sizes = Sizes(train=256, validation=HELD_OUT, test=HELD_OUT)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[PairItem, ...]:
        """Return the pairs of a split, in the order of the file; none in English.

        Raises:
            OptionError: the folder's file cannot be read.
        """
        choose("language", language, self.languages)
        choose("split", split, SPLITS)
        choose("difficulty", difficulty, self.difficulties)
        if language == SOURCE_LANGUAGE:
            return ()
        found = _pairs(language, data_dir)
        return tuple(
            PairItem(
                index=index,
                id=f"{language}-{position}",
                language=language,
                stratum="",
                word=found[position][0],
                translation=found[position][1],
            )
            for index, position in enumerate(parts(found)[split])
        )

    def prompt(self, item: Item) -> str:
        """Return the English word."""
        assert isinstance(item, PairItem)
        return item.word

    def answer(self, item: Item) -> str:
        return f" {self.gold(item)[0]}"

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, PairItem)
        return (item.translation,)

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Micro-F1 of the translation found for each word among all of the set: with one of each, P@1."""
        return {"f1": sum(p in answers for p, answers in zip(predicted, gold, strict=True)) / len(gold)}

    def floors(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return what chance gives: `p1`, and the mean reciprocal rank `mrr`."""
        n = len(test)
        return {"p1": 1 / n, "mrr": sum(1 / rank for rank in range(1, n + 1)) / n} if n else {}


def own_file(language: str, data_dir: str) -> Path:
    """Return where a folder would have pairs of English and a language."""
    return Path(data_dir).expanduser() / f"en-{language}.tsv"


def _pairs(language: str, data_dir: str | None) -> list[pairs.Pair]:
    """Return the folder's pairs, or the packaged ones: a folder may hold the data of the retained task alone."""
    if data_dir is not None and own_file(language, data_dir).is_file():
        return pairs.from_file(str(own_file(language, data_dir)), option="data_dir")
    return pairs.packaged(language)


def parts(found: Sequence[pairs.Pair]) -> dict[Split, list[int]]:
    """Return the positions of the pairs of each split, the same for every seed.

    Pairs that share a word, of either language and in whatever case, are kept together; a group larger than what is
    still wanted is trained on.
    """
    groups = _groups(found)
    random.Random("align-words").shuffle(groups)
    size = min(HELD_OUT, len(found) // 6)
    result: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for group in groups:
        held_out: tuple[Split, ...] = ("test", "validation")
        room = (split for split in held_out if len(result[split]) + len(group) <= size)
        result[next(room, "train")] += group
    return {split: sorted(positions) for split, positions in result.items()}


def _groups(found: Sequence[pairs.Pair]) -> list[list[int]]:
    """Return positions in groups of pairs that are connected by words they share."""
    parent = list(range(len(found)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first_with: dict[str, int] = {}
    for position, pair in enumerate(found):
        for form in forms(pair):
            parent[root(position)] = root(first_with.setdefault(form, position))
    groups: dict[int, list[int]] = defaultdict(list)
    for position in range(len(found)):
        groups[root(position)].append(position)
    return list(groups.values())


def forms(pair: pairs.Pair) -> set[str]:
    """Return the words of both texts, without differences of case."""
    return {word for text in pair for word in unicodedata.normalize("NFKC", text).casefold().split()}
