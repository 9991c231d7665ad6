"""Sentences and their translations as a task that is scored but not trained: a text retrieves its translation."""

from __future__ import annotations

from collections.abc import Sequence

from whichlora.data.tasks import files
from whichlora.data.tasks.base import SOURCE_LANGUAGE, RetrievalTask, Sizes, Split
from whichlora.data.tasks.items import Item, PairItem
from whichlora.data.tasks.pairs import tatoeba


class Tatoeba(RetrievalTask):
    """English sentences of LASER's Tatoeba test sets and their translations, in the order of the files."""

    name = "tatoeba"
    languages = (SOURCE_LANGUAGE, *tatoeba.ISO_639_3)
    pooled = ()
    headline = "p1"
    sizes = Sizes()
    option = "alignment_dir"
    """The option whose value is `data_dir`, for error messages."""

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[PairItem, ...]:
        """Return the pairs of the only split, test.

        Raises:
            OptionError: the files cannot be read.
        """
        if split != "test":
            return ()
        pairs = tatoeba.read(language, data_dir, option=self.option)
        return tuple(
            PairItem(index=i, id=f"{language}-{i}", language=language, stratum="", word=english, translation=other)
            for i, (english, other) in enumerate(pairs)
        )

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        paths = tatoeba.files(language, data_dir, option=self.option)
        return {str(path.absolute()): files.digest(path) for path in paths}

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return the share of English sentences whose nearest neighbour is their translation, by raw cosine."""
        return {"p1": sum(text in answers for text, answers in zip(predicted, gold, strict=True)) / len(gold)}

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the expected score of random retrieval."""
        return {"chance": 1 / len(test)}
