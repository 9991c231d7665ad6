"""The interface of a task: loading items, writing prompts and scoring answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from whichlora.data.tasks.items import Item, PairItem, QaItem, named_texts
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.errors import OptionError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SOURCE_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Default number of items per split; None means what the data has, see `mixture.automatic_size`."""

    train: int | None = None
    validation: int | None = None
    test: int | None = None


class Task(ABC):
    """Base class of tasks. To add a task, add a module that subclasses `NliTask`, `QaTask`, `PromptTask` or `PairTask`.

    Class attributes:
        languages: codes of the task's languages, ISO 639-1 where there is one, including the source.
        source: the language that is transferred from; None for a study in one language.
        pooled: the target languages that `language=pooled` stands for; those of the paper "Which LoRA?" where it covers
            the task.
        parallel: whether items with the same `index` are translations of each other.
        synthetic: whether the items are generated; reports mark the results of such tasks.
        irrelevant_options: run options that do not apply to the task, with the reason.
        default_tl_ratio: default of the option `tl_ratio`.
        selection_role: role whose validation items select the checkpoint; None if the option `select_on` decides.
        scores_training_items: whether the training items are scored too, as the test set `trained`.
        headline: the metric that selects the checkpoint; the gain is its increase over the base model.
        labels: the possible answers of a classification task, as scored and logged; prompts may use other words.
        own_choices: whether the answers are texts of each item, such as endings of a story, which `label_words` returns
            in the order of `labels`; they are scored by their mean log-likelihood per token.
        prompt_version: increment whenever the prompt's text changes.
        prompt_languages: the languages with prompts.
        default_prompt_language: default of the option `prompt_language`.
        answer_tokens: maximum number of tokens of a generated answer.
        until: text at which a generated answer ends; empty if it ends only with the text or the turn.
        chat_template: `auto` (that of an instruct model), `none` or a file, unless the option `chat_template` decides.
        difficulties: allowed values of the option `difficulty`; the first is the default.
        yaml: the file that declares the task, as it is written; empty for a task in Python.
    """

    name: ClassVar[str]
    languages: ClassVar[tuple[str, ...]]
    source: ClassVar[str | None] = SOURCE_LANGUAGE
    pooled: ClassVar[tuple[str, ...]]
    parallel: ClassVar[bool]
    synthetic: ClassVar[bool] = False
    irrelevant_options: ClassVar[Mapping[str, str]] = {}
    default_tl_ratio: ClassVar[float] = 0.5
    selection_role: ClassVar[str | None] = None
    scores_training_items: ClassVar[bool] = False
    headline: ClassVar[str] = "f1"
    labels: ClassVar[tuple[str, ...]] = ()
    own_choices: ClassVar[bool] = False
    prompt_version: ClassVar[str]
    prompt_languages: ClassVar[tuple[str, ...]] = (SOURCE_LANGUAGE,)
    default_prompt_language: ClassVar[PromptLanguage] = "en"
    answer_tokens: int
    until: ClassVar[str] = "\n"
    chat_template: ClassVar[str] = "auto"
    difficulties: ClassVar[tuple[str, ...]] = ("normal",)
    yaml: ClassVar[str] = ""
    sizes: ClassVar[Sizes]

    def __init__(self, prompt_language: PromptLanguage | None = None) -> None:
        """Set the language of instruction and labels: the source language ("en") or that of each item ("item")."""
        self.prompt_language: PromptLanguage = prompt_language or self.default_prompt_language

    def check_prompts(self, languages: Sequence[str]) -> None:
        """Check that the task has prompts for items in these languages.

        Raises:
            OptionError: a language has no prompt; the message names it.
        """
        missing = [code for code in languages if code not in self.prompt_languages]
        if self.prompt_language == "item" and missing:
            raise OptionError(
                "prompt_language", "item", f"{self.name} has no prompt in {missing[0]}; allowed are en, auto"
            )

    def written_in(self, item: Item) -> str:
        """Return the language in which instruction and labels are written for an item."""
        return item.language if self.prompt_language == "item" or not self.source else self.source

    def roles(self, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the languages of validation and test items by role, for the target languages of a run.

        The roles are `en`, the source language whatever it is, and `tl`.
        """
        target = {"tl": tuple(targets)}
        return target if self.source is None else {"en": (self.source,), **target}

    def run_label(self, *, mixture: str, scoring: str) -> str:
        """Return the part of a run's name that describes the task's setting: the mixture or the scoring."""
        return mixture

    @abstractmethod
    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> Sequence[Item]:
        """Return all items of a split in one language, in the order of `index`; empty if there is no such split.

        Raises:
            OptionError: the data is missing or cannot be read.
        """

    def texts(self, item: Item) -> dict[str, str]:
        """Return the texts of an item that are in its prompt, by name."""
        return named_texts(item) or {"prompt": self.prompt(item)}

    def optional_texts(self) -> frozenset[str]:
        """Return the names of the `texts` of an item that may be empty."""
        return frozenset()

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        """Return what `load` reads: the SHA-256 of each file by its path, or the split of a dataset on the hub.

        Empty for data that is part of the package, or if the task does not say.
        """
        return {}

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """Return the input text of an item. It ends where the answer begins, without a trailing space."""

    def turns(self, item: Item) -> list[dict[str, str]]:
        """Return the conversation before the answer, for models with a chat template: turns with `role` and `content`.

        It is the prompt as the user's turn, unless the item is a conversation.
        """
        return [{"role": "user", "content": self.prompt(item)}]

    @abstractmethod
    def answer(self, item: Item) -> str:
        """Return the target text that follows the prompt, with its leading space."""

    def label_words(self, item: Item) -> tuple[str, ...]:
        """Return the words that stand for each of `labels` in the answer to this item's prompt."""
        return self.labels

    def control(self, item: Item) -> Item | None:
        """Return an item without what decides between its `own_choices`, such as the premise; None if there is none."""
        return None

    @abstractmethod
    def gold(self, item: Item) -> tuple[str, ...]:
        """Return the accepted answers: one label, or one or more spans."""

    @abstractmethod
    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Score predictions against accepted answers; all metrics range from 0 to 1 and include `f1`.

        A prediction of None stands for an answer that is not a label; it counts as wrong.
        """

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the scores of shallow baselines that a model must beat, by name."""
        return {}


class PromptTask(Task):
    """A task whose items are prompts that the model answers with text."""

    irrelevant_options: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("pool_layer", "first_token"), "the task has no word pairs"
    )

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the headline metric of `generic_baselines`.

        They are a majority label and linear classifiers for tasks with labels, a random span of the context for
        extractive QA, and otherwise each of the item's texts as the answer.
        """
        from whichlora.data.tasks import generic_baselines as generic

        if not train or not test:
            return {}
        texts, gold = [self.texts(item) for item in test], [self.gold(item) for item in test]
        passages, questions = ([item for item in items if isinstance(item, QaItem)] for items in (train, test))
        answers: dict[str, Sequence[Sequence[str]]]
        if self.labels:
            labels = [self.gold(item)[0] for item in train]
            found = generic.classified([self.texts(item) for item in train], labels, texts)
            answers = {name: [predicted] for name, predicted in found.items()}
        elif passages and len(questions) == len(test):
            answers = {"random_candidate": generic.random_spans(passages, questions)}
        else:
            answers = {name: [predicted] for name, predicted in generic.copied(texts).items()}
        return {
            name: sum(self.metrics(predicted, gold)[self.headline] for predicted in draws) / len(draws)
            for name, draws in answers.items()
        }


class RetrievalTask(Task):
    """A task whose items are pairs of a text and its translation, which the text is to retrieve; there is no prompt."""

    parallel = False
    prompt_version = "pairs-1"
    chat_template = "none"
    answer_tokens = 0

    def prompt(self, item: Item) -> str:
        """Return the English text."""
        assert isinstance(item, PairItem)
        return item.word

    def answer(self, item: Item) -> str:
        return f" {self.gold(item)[0]}"

    def gold(self, item: Item) -> tuple[str, ...]:
        assert isinstance(item, PairItem)
        return (item.translation,)


class PairTask(RetrievalTask):
    """A task whose items are word pairs: training and scoring use the hidden states of both words, without a prompt.

    An item belongs to two languages.
    """

    irrelevant_options: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("tl_ratio", "composition", "scoring", "select_on"), "every item is a pair of both languages"
    ) | {"chat_template": "word pairs have no prompt"}
    default_tl_ratio = 1.0
    selection_role = "control"
    scores_training_items = True

    def roles(self, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"control": tuple(targets)}

    def run_label(self, *, mixture: str, scoring: str) -> str:
        return scoring
