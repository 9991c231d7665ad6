"""Tasks that are declared in YAML files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from whichlora.data.chat import NONE
from whichlora.data.tasks import prompts, text_metrics
from whichlora.data.tasks.base import SPLITS, PromptTask, Sizes, Split
from whichlora.data.tasks.declared.conversion import Converted
from whichlora.data.tasks.declared.declaration import Declaration
from whichlora.data.tasks.declared.prompting import control_of, prompt_of, texts_in_prompt, words_of
from whichlora.data.tasks.declared.repeated import entries_of
from whichlora.data.tasks.declared.splits import Reader, divide
from whichlora.data.tasks.items import FieldsItem, Item, QaItem
from whichlora.data.tasks.nli import label_scores
from whichlora.data.tasks.qa import QaTask
from whichlora.errors import check_choice

ANSWER_TOKENS = {"span": 128, "text": 256}
"""Maximum number of tokens of a generated answer, unless the declaration gives another."""
ANSWER_ENDS = {"choice": "\n", "span": "\n", "text": ""}
"""Text at which a generated answer ends, unless the declaration gives another."""


class DeclaredTask(PromptTask):
    """Base class of declared tasks; `declare` makes a class from a declaration.

    Class attributes:
        declaration: what the YAML file says.
        reader: reads its data.
    """

    declaration: ClassVar[Declaration]
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
        entries = entries_of(self, self.reader, language, split, data_dir)
        if split == "test" or (split == "validation" and entries is not None):
            return _items(entries or ())
        train = entries_of(self, self.reader, language, "train", data_dir) or ()
        if entries_of(self, self.reader, language, "validation", data_dir) is not None:
            return _items(train)
        rest, held = divide(self.declaration, train, self._reference(data_dir), self.declaration.held_out)
        return _items(rest if split == "train" else held)

    def _reference(self, data_dir: str | None) -> tuple[Converted, ...]:
        """Return the training items of the language that decides which are held out in all."""
        codes = dict.fromkeys((self.declaration.reference, *self.languages))
        pools = (entries_of(self, self.reader, code, "train", data_dir) for code in codes)
        return next(filter(None, pools), ())

    def texts(self, item: Item) -> dict[str, str]:
        return texts_in_prompt(self.declaration, item)

    def optional_texts(self) -> frozenset[str]:
        return frozenset(self.declaration.fields) - self.declaration.needed - {"messages"}

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        """Return the SHA-256 of each file that `load` reads by its path, or the split of a dataset on the hub."""
        return self.reader.origin(language, split, data_dir)

    def prompt(self, item: Item) -> str:
        return prompt_of(self.declaration, item, self.written_in(item))

    def turns(self, item: Item) -> list[dict[str, str]]:
        return (isinstance(item, FieldsItem) and item.turns) or super().turns(item)

    def answer(self, item: Item) -> str:
        """Return the first accepted answer, or the word of the label; on one line if a line break ends answers."""
        text = self.gold(item)[0]
        if self.labels:
            text = self.label_words(item)[self.labels.index(text)]
        if self.until == "\n" and "\n" in text:
            text = " ".join(text.split())
        return f" {text}"

    def label_words(self, item: Item) -> tuple[str, ...]:
        return words_of(self.declaration, item, self.written_in(item))

    def control(self, item: Item) -> Item | None:
        return control_of(self.declaration, item)

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, FieldsItem | QaItem)
        return item.answers

    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Return the metrics of the kind, see `declaration.METRICS`: those that need a library only if declared.

        For `choice` f1 is micro-F1, equal to the accuracy, because invalid answers count as wrong.
        """
        if not self.labels:
            texts = [text or "" for text in predicted]
            scores = QaTask.metrics(self, predicted, gold)  # type: ignore[arg-type]
            return scores | {
                name: metric(texts, gold)
                for name, (metric, _) in text_metrics.METRICS.items()
                if name in self.declaration.scores
            }
        labelled = label_scores(predicted, gold, self.labels)
        return labelled | {"accuracy": labelled["f1"]}


def declare(declaration: Declaration, text: str, root: Path | None) -> type[DeclaredTask]:
    """Return the class of a declared task; `text` is the file with the declaration, `root` its folder."""
    targets = tuple(code for code in declaration.codes if code != declaration.source)
    default: prompts.PromptLanguage = "item" if isinstance(declaration.prompt, dict) else "en"
    sizes = declaration.sizes
    attributes = {
        "__module__": __name__,
        "__doc__": f"The declared task {declaration.task}.",
        "declaration": declaration,
        "reader": Reader(declaration, root),
        "yaml": text,
        "name": declaration.task,
        "languages": declaration.codes,
        "source": declaration.source,
        "pooled": tuple(declaration.pooled or targets),
        "parallel": declaration.parallel,
        "headline": declaration.scores[0],
        "until": ANSWER_ENDS[declaration.kind] if declaration.answer.until is None else declaration.answer.until,
        "chat_template": _chat_template(declaration, root),
        "own_choices": declaration.choices is not None,
        "labels": tuple(dict.fromkeys(declaration.label_names.values())),
        "prompt_version": f"declared-1 {declaration.digest[:16]} {text_metrics.versions(declaration.scores)}".rstrip(),
        "prompt_languages": _prompt_languages(declaration),
        "default_prompt_language": default,
        "sizes": Sizes(train=sizes.train, validation=sizes.validation, test=sizes.test),
    }
    return type(declaration.task, (DeclaredTask,), attributes)


def _prompt_languages(declaration: Declaration) -> tuple[str, ...]:
    """Return the languages with instructions of their own; one prompt for all counts as that of the reference."""
    if declaration.prompt is None and declaration.kind == "span":
        return tuple(code for code in declaration.codes if code in prompts.QA)
    return declaration.codes if isinstance(declaration.prompt, dict) else (declaration.reference,)


def _chat_template(declaration: Declaration, root: Path | None) -> str:
    """Return the chat template of a declaration; a file is relative to the folder of the declaration."""
    name = declaration.chat_template
    return name if root is None or name in ("auto", NONE) else str(root / name)


def _each(texts: str | dict[str, str]) -> list[str]:
    return list(texts.values()) if isinstance(texts, dict) else [texts]


def _items(entries: Sequence[Converted]) -> tuple[Item, ...]:
    return tuple(entry.item for entry in entries)
