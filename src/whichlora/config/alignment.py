"""Resolves the option `alignment`: sentences with which a run measures alignment before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whichlora.config.options import RunOptions
from whichlora.config.plan import TestSet
from whichlora.data.mixture import texts_digest
from whichlora.data.targets import target_languages
from whichlora.data.tasks import Item, Task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.data.tasks.pairs.sentences import Tatoeba
from whichlora.data.word_pooling import Pooling, retrieval_layer
from whichlora.errors import OptionError
from whichlora.evaluation.scoring_methods import SentenceRetrieval

TATOEBA = Tatoeba()


def check_options(options: RunOptions) -> None:
    """Check that the options of `alignment` are set only with it.

    Raises:
        OptionError: one of them is set without it.
    """
    for name in ("alignment_size", "alignment_dir"):
        value = getattr(options, name)
        if options.alignment == "none" and value is not None:
            raise OptionError(name, value, "needs alignment=tatoeba; remove the option")


def sentence_items(task: Task, options: RunOptions) -> dict[str, Sequence[Item]]:
    """Return the sentences of each target language of a run of `task`, by its code; none without the option.

    They are the first of the files, the same for every run.

    Raises:
        OptionError: The files cannot be read, or have too few sentences.
    """
    if options.alignment == "none":
        return {}
    codes = [code for code in target_languages(task, options.language) if code != SOURCE_LANGUAGE]
    if not codes:
        raise OptionError("alignment", options.alignment, f"needs a target language other than {SOURCE_LANGUAGE}")
    found: dict[str, Sequence[Item]] = {}
    for code in codes:
        items = TATOEBA.load(code, "test", data_dir=options.alignment_dir or options.data_dir)
        size = options.alignment_size or len(items)
        if size > len(items):
            raise OptionError("alignment_size", size, f"{TATOEBA.name} has {len(items)} sentences in {code}")
        found[code] = items[:size]
    return found


def sentence_tests(items_of: Mapping[str, Sequence[Item]], n_layers: int) -> list[TestSet]:
    """Return a test set for each language: a text is retrieved from those of its language alone.

    Args:
        items_of: the sentences by language.
        n_layers: number of decoder blocks of the model.
    """
    return [
        TestSet(
            role=TATOEBA.name,
            language=code,
            task=TATOEBA,
            items=items,
            scoring=SentenceRetrieval(Pooling(retrieval_layer(n_layers))),
            digest=texts_digest(TATOEBA, items),
            group="alignment",
            suffix=f"/{code}" if len(items_of) > 1 else "",
        )
        for code, items in items_of.items()
    ]
