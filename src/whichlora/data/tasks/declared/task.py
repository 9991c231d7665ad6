"""Tasks that are declared in YAML files."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, get_args

from whichlora.data.tasks import prompts
from whichlora.data.tasks.base import SPLITS, PromptTask, Sizes, Split
from whichlora.data.tasks.declared import templates
from whichlora.data.tasks.declared.conversion import Converted, convert
from whichlora.data.tasks.declared.declaration import METRICS, Declaration
from whichlora.data.tasks.declared.reading import rows
from whichlora.data.tasks.duplicates import counted, normalized, repeats
from whichlora.data.tasks.items import FieldsItem, Item, QaItem
from whichlora.data.tasks.nli import macro_f1
from whichlora.data.tasks.qa import QaTask
from whichlora.data.tasks.stratification import hold_out, hold_out_groups
from whichlora.errors import OptionError, check_choice

ANSWER_TOKENS = {"span": 128, "text": 256}
"""Maximum number of tokens of a generated answer, unless the declaration gives another."""


class DeclaredTask(PromptTask):
    """Base class of declared tasks; `declare` makes a class from a declaration.

    Class attributes:
        declaration: what the YAML file says.
        root: its folder; None for a declaration of the catalogue.
    """

    declaration: ClassVar[Declaration]
    root: ClassVar[Path | None]

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
        entries = _split(type(self), language, split, data_dir)
        if split == "test" or (split == "validation" and entries is not None):
            return tuple(entry.item for entry in entries or ())
        train = _split(type(self), language, "train", data_dir) or ()
        if _split(type(self), language, "validation", data_dir) is not None:
            return tuple(entry.item for entry in train)
        rest, held = self._hold_out(train, language, data_dir)
        return rest if split == "train" else held

    def texts(self, item: Item) -> dict[str, str]:
        template = self.declaration.prompt
        if not isinstance(item, FieldsItem):
            return super().texts(item)
        if template is None:  # a conversation
            return {"prompt": self.prompt(item)}
        names = tuple(name for name, _ in item.fields)
        used = {name for text in _each(template) for name in _used(text, names)}
        return {name: text for name, text in item.fields if name in used}

    def _hold_out(
        self, train: Sequence[Converted], language: str, data_dir: str | None
    ) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """Divide training items into (training, validation), without dividing a group.

        Groups are the declared ones, or else items with the same context (span) or the same texts.
        """
        declared, group = self.declaration.held_out, self.declaration.group
        items = [entry.item for entry in train]
        codes = dict.fromkeys([*filter(None, [self.source]), *self.languages])
        pools = (train if code == language else _split(type(self), code, "train", data_dir) for code in codes)
        reference = next(filter(None, pools), ()) if self.parallel or group else ()
        of_items, of_reference = ([self._group(entry) for entry in entries] for entries in (train, reference))
        shared = group is not None and not self.parallel  # a value may occur in several languages
        size = declared if isinstance(declared, int) else round(declared * len(reference if shared else items))
        if not shared:
            return hold_out(items, size, of_reference if self.parallel else of_items)
        strata = [entry.item.stratum for entry in reference]
        rest, held = hold_out_groups(items, of_items, of_reference, size, strata)
        if items and not rest:
            raise OptionError(
                "task", self.name, f"all training items in {language} have one {group}: none can be held out"
            )
        return rest, held

    def _group(self, entry: Converted) -> str:
        if self.declaration.group is not None:
            return normalized(entry.group)
        texts = [entry.item.context] if isinstance(entry.item, QaItem) else self.texts(entry.item).values()
        return "\n".join(map(normalized, texts))

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
        "name": declaration.task,
        "languages": declaration.codes,
        "source": declaration.source,
        "pooled": tuple(declaration.pooled or targets),
        "parallel": declaration.parallel,
        "default_tl_ratio": 0.5 if has_source else 1.0,
        "headline": (declaration.metrics or METRICS[declaration.kind])[0],
        "labels": tuple(dict.fromkeys(declaration.label_names.values())),
        "prompt_version": f"declared-1 {declaration.digest[:16]}",
        "prompt_languages": declaration.codes,
        "default_prompt_language": default,
        "sizes": Sizes(train=sizes.train, validation=sizes.validation, test=sizes.test),
    }
    return type(declaration.task, (DeclaredTask,), attributes)


def _each(words: str | dict[str, str]) -> list[str]:
    return list(words.values()) if isinstance(words, dict) else [words]


@functools.lru_cache(maxsize=64)
def _used(template: str, names: tuple[str, ...]) -> set[str]:
    """Return which of an item's fields a template uses."""
    return templates.check_template(template, names)


@functools.lru_cache(maxsize=64)
def _split(task: type[DeclaredTask], language: str, split: Split, data_dir: str | None) -> tuple[Converted, ...] | None:
    """Return the items of a split with their groups, without repeated ones if the declaration says so.

    None if there is no such split in this language.
    """
    entries = _converted(task, language, split, data_dir)
    if entries is None or not task.declaration.deduplicate:
        return entries
    dropped = _repeated(task, None if task.parallel else language, data_dir)[split]
    kept = (entry for position, entry in enumerate(entries) if position not in dropped)
    return tuple(replace(entry, item=replace(entry.item, index=index)) for index, entry in enumerate(kept))


@functools.lru_cache(maxsize=64)
def _repeated(task: type[DeclaredTask], language: str | None, data_dir: str | None) -> dict[Split, set[int]]:
    """Return the positions of repeated items by split, and warn of their number.

    Args:
        language: where they are repeated; None for all languages of a parallel task, which leave out equal positions.
    """
    dropped: dict[Split, set[int]] = {split: set() for split in SPLITS}
    for code in task.languages if language is None else [language]:
        try:
            items = {s: [e.item for e in _converted(task, code, s, data_dir) or ()] for s in SPLITS}
        except OptionError:
            if language is not None:
                raise
            continue  # a folder may lack languages of the task
        found = list(repeats(task(), items))
        for repeat in found:
            dropped[repeat.split].add(repeat.position)
        if found:
            text = "; ".join(counted(found))
            warnings.warn(f"{task.name}: left out in {code}, since `deduplicate` is true: {text}", stacklevel=2)
    return dropped


@functools.lru_cache(maxsize=64)
def _converted(
    task: type[DeclaredTask], language: str, split: Split, data_dir: str | None
) -> tuple[Converted, ...] | None:
    """Return the items of a split with their groups; None if there is no such split in this language."""
    found = rows(task.declaration, task.root, language, split, data_dir)
    return None if found is None else tuple(convert(task.declaration, task.declaration.fields, found, language))
