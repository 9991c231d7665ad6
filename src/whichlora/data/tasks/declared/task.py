"""Tasks that are declared in YAML files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, get_args

from whichlora.data.tasks import prompts
from whichlora.data.tasks.base import SPLITS, PromptTask, Sizes, Split
from whichlora.data.tasks.declared import templates
from whichlora.data.tasks.declared.conversion import Converted
from whichlora.data.tasks.declared.declaration import METRICS, Declaration
from whichlora.data.tasks.declared.splits import Reader
from whichlora.data.tasks.items import FieldsItem, Item, QaItem
from whichlora.data.tasks.nli import macro_f1
from whichlora.data.tasks.qa import QaTask
from whichlora.data.tasks.stratification import hold_out, hold_out_groups
from whichlora.errors import check_choice

ANSWER_TOKENS = {"span": 128, "text": 256}
"""Maximum number of tokens of a generated answer, unless the declaration gives another."""


class DeclaredTask(PromptTask):
    """Base class of declared tasks; `declare` makes a class from a declaration.

    Class attributes:
        declaration: what the YAML file says.
        root: its folder; None for a declaration of the catalogue.
        reader: reads its data.
    """

    declaration: ClassVar[Declaration]
    root: ClassVar[Path | None]
    reader: ClassVar[Reader]

    def __init__(self, prompt_language: prompts.PromptLanguage | None = None) -> None:
        super().__init__(prompt_language)
        declared = self.declaration.answer.tokens
        words = [word for names in self.declaration.words.values() for word in _each(names)]
        # With one token per byte, and one for the end of the text.
        longest = max((len(word.encode()) for word in words), default=0) + 2
        self.answer_tokens = declared or ANSWER_TOKENS.get(self.declaration.kind, longest)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[Item, ...]:
        """Return all items of a split in one language, in the order of the file.

        Validation items are those of the split, or else held out from the training items, the same for every seed. A
        language without training items can be evaluated but not trained on.

        Raises:
            OptionError: the data is missing or cannot be used; the message names file and line.
        """
        check_choice("language", language, self.languages)
        check_choice("split", split, SPLITS)
        check_choice("difficulty", difficulty, self.difficulties)
        converted = _converted(type(self), language, split, data_dir)
        if split == "test" or (split == "validation" and converted is not None):
            return tuple(entry.item for entry in converted or ())
        train = _converted(type(self), language, "train", data_dir) or ()
        if _converted(type(self), language, "validation", data_dir) is not None:
            return tuple(entry.item for entry in train)
        rest, held = self._hold_out(train, language, data_dir)
        return rest if split == "train" else held

    def _hold_out(
        self, train: Sequence[Converted], language: str, data_dir: str | None
    ) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        declared = self.declaration.held_out
        items = [entry.item for entry in train]
        size = declared if isinstance(declared, int) else round(declared * len(items))
        if self.declaration.group is None or not items:
            return hold_out(items, size)
        first = self.source or (self.declaration.reference if self.parallel else language)
        of_source = train if first == language else _converted(type(self), first, "train", data_dir) or ()
        if not isinstance(declared, int):
            size = round(declared * len(of_source))
        reference = [entry.group for entry in of_source]
        groups = reference if self.parallel else [entry.group for entry in train]
        return hold_out_groups(items, groups, reference, size)

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        """Return the SHA-256 of each file that `load` reads by its path, or the split of a dataset on the hub."""
        return self.reader.origin(language, split, data_dir)

    def written_in(self, item: Item) -> str:
        return item.language if self.prompt_language == "item" or not self.source else self.source

    def prompt(self, item: Item) -> str:
        language = self.written_in(item)
        template = self.declaration.prompt
        if isinstance(item, QaItem):
            if template is None:
                return prompts.QA[language if language in prompts.QA else "en"].text(item.context, item.question)
            fields = {"context": item.context, "question": item.question}
        else:
            assert isinstance(item, FieldsItem)
            fields = dict(item.fields)
        text = template[language] if isinstance(template, dict) else template
        assert text is not None
        return templates.render(text, fields, labels=self.label_words(item), language=item.language)

    def answer(self, item: Item) -> str:
        text = self.gold(item)[0]
        return f" {self.label_words(item)[self.labels.index(text)] if self.labels else text}"

    def label_words(self, item: Item) -> tuple[str, ...]:
        language = self.written_in(item)
        words = self.declaration.words
        return tuple(
            word[language] if isinstance(word, dict) else word for label in self.labels for word in (words[label],)
        )

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, FieldsItem | QaItem)
        return item.answers

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return the metrics of the kind: for `choice` micro-F1 and macro-F1, otherwise token F1 and exact match."""
        if not self.labels:
            return QaTask.metrics(self, predicted, gold)  # type: ignore[arg-type]
        true = [answers[0] for answers in gold]
        answered = [p if p in self.labels else "" for p in predicted]
        accuracy = sum(t == p for t, p in zip(true, answered, strict=True)) / len(true)
        return {"f1": accuracy, "macro_f1": macro_f1(true, answered, self.labels)}


def declare(declaration: Declaration, root: Path | None) -> type[DeclaredTask]:
    """Return the class of a declared task."""
    targets = tuple(code for code in declaration.codes if code != declaration.source)
    has_source = declaration.source is not None
    default: prompts.PromptLanguage = get_args(prompts.PromptLanguage)[isinstance(declaration.prompt, dict)]
    sizes = declaration.sizes
    attributes = {
        "__module__": __name__,
        "__doc__": f"The declared task {declaration.task}.",
        "declaration": declaration,
        "root": root,
        "reader": Reader(declaration, root),
        "name": declaration.task,
        "languages": declaration.codes,
        "source": declaration.source,
        "pooled": tuple(declaration.pooled or targets),
        "parallel": declaration.parallel,
        "default_tl_ratio": 0.5 if has_source else 1.0,
        "headline": (declaration.metrics or METRICS[declaration.kind])[0],
        "labels": tuple(dict.fromkeys(declaration.label_names.values())),
        "prompt_version": f"declared-1 {declaration.digest[:16]}",
        "prompt_languages": _prompt_languages(declaration),
        "default_prompt_language": default,
        "sizes": Sizes(train=sizes.train or 1000, validation=sizes.validation or 100, test=sizes.test),
    }
    return type(declaration.task, (DeclaredTask,), attributes)


def _prompt_languages(declaration: Declaration) -> tuple[str, ...]:
    """Return the languages with instructions of their own; one prompt for all counts as that of the reference."""
    if declaration.prompt is None and declaration.kind == "span":
        return tuple(code for code in declaration.codes if code in prompts.QA)
    return declaration.codes if isinstance(declaration.prompt, dict) else (declaration.reference,)


def _each(words: str | dict[str, str]) -> list[str]:
    return list(words.values()) if isinstance(words, dict) else [words]


@functools.lru_cache(maxsize=16)
def _converted(
    task: type[DeclaredTask], language: str, split: Split, data_dir: str | None
) -> tuple[Converted, ...] | None:
    """Return the items of a split with their groups; None if there is no such split in this language."""
    return task.reader.entries(language, split, data_dir)
