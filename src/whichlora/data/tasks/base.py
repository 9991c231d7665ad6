"""What a task is: items that are loaded, put into a prompt, answered and scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from whichlora.data.tasks.items import Item
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.errors import OptionError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SOURCE_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Sizes:
    """A task's usual number of items in each split; None stands for every item there is, in each language."""

    train: int
    validation: int
    test: int | None


class Task(ABC):
    """A task: adding one is adding one module that subclasses `NliTask`, `QaTask`, `PromptTask` or `PairTask`.

    Class attributes:
        languages: ISO 639-1 codes that the task has, English among them.
        pooled: the target languages that the language "pooled" stands for; those of "Which LoRA?" where it has them.
        parallel: whether item `index` is the same item in every language.
        synthetic: shown wherever results of the task show.
        irrelevant_options: options of a run that do not apply to the task, with the reason.
        default_tl_ratio: what the option `tl_ratio` is where it is not given.
        selection_role: the role whose validation chooses the checkpoint; None where the option `select_on` decides.
        scores_training_items: whether the training items are a test set as well, called `trained`.
        headline: the metric that the checkpoint is chosen by, and whose rise over the base model is the gain.
        labels: where an answer is one of several, these as they are scored and logged, whatever the prompt calls them.
        prompt_version: rises when the prompt's text changes.
        prompt_languages: the languages that prompts are written in.
        answer_tokens: how many tokens an answer may take when it is generated.
        difficulties: what the option `difficulty` may be; the first is the default.
    """

    name: ClassVar[str]
    languages: ClassVar[tuple[str, ...]]
    pooled: ClassVar[tuple[str, ...]]
    parallel: ClassVar[bool]
    synthetic: ClassVar[bool] = False
    irrelevant_options: ClassVar[Mapping[str, str]] = {}
    default_tl_ratio: ClassVar[float] = 0.5
    selection_role: ClassVar[str | None] = None
    scores_training_items: ClassVar[bool] = False
    headline: ClassVar[str] = "f1"
    labels: ClassVar[tuple[str, ...]] = ()
    prompt_version: ClassVar[str]
    prompt_languages: ClassVar[tuple[str, ...]] = (SOURCE_LANGUAGE,)
    answer_tokens: int
    difficulties: ClassVar[tuple[str, ...]] = ("normal",)
    sizes: ClassVar[Sizes]

    def __init__(self, prompt_language: PromptLanguage = "en") -> None:
        """Write instruction and labels in English, or in the language of each item."""
        self.prompt_language = prompt_language

    def check_prompts(self, languages: Sequence[str]) -> None:
        """Check that there are prompts for items in these languages.

        Raises:
            OptionError: there is none in one of them; the message names it.
        """
        missing = [code for code in languages if code not in self.prompt_languages]
        if self.prompt_language == "item" and missing:
            raise OptionError("prompt_language", "item", f"{self.name} has no prompt in {missing[0]}; allowed is en")

    def written_in(self, item: Item) -> str:
        """Return the language of instruction and labels for an item."""
        return item.language if self.prompt_language == "item" else SOURCE_LANGUAGE

    def roles(self, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the languages of validation and test items by role, for the target languages of a run."""
        return {"en": (SOURCE_LANGUAGE,), "tl": tuple(targets)}

    def run_label(self, *, mixture: str, scoring: str) -> str:
        """Return which of the two tells runs of the task apart in their names."""
        return mixture

    @abstractmethod
    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> Sequence[Item]:
        """Return every item of a split in one language, in the order of `index`; none where there is no such split.

        Raises:
            OptionError: the data is not there or cannot be read.
        """

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """Return the text the model reads. It ends where the answer begins, without a trailing space."""

    @abstractmethod
    def answer(self, item: Item) -> str:
        """Return the text the model learns to write after the prompt, with its leading space."""

    def label_words(self, item: Item) -> tuple[str, ...]:
        """Return what the model writes for each of `labels` after this item's prompt."""
        return self.labels

    @abstractmethod
    def gold(self, item: Item) -> tuple[str, ...]:
        """Return the accepted answers: one label, or one or several spans."""

    @abstractmethod
    def metrics(self, predicted: Sequence[str | None], gold: Sequence[tuple[str, ...]]) -> dict[str, float]:
        """Score predictions against accepted answers, each metric from 0 to 1, `f1` among them.

        None stands for an answer that is none of the labels: it counts as wrong.
        """

    def floors(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return the scores of shallow methods that no model should be praised for reaching, by name."""
        return {}


class PromptTask(Task):
    """A task whose items are put into a prompt and answered in writing."""

    irrelevant_options: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("pool_layer", "first_token"), "which reads no word pairs"
    )


class PairTask(Task):
    """A task whose items are pairs of words that are read, not answered.

    What is trained and scored are the states of both words. An item is in two languages at once.
    """

    irrelevant_options: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("tl_ratio", "composition", "scoring", "select_on"), "every item is a pair of both languages"
    )
    default_tl_ratio = 1.0
    selection_role = "control"
    scores_training_items = True

    def roles(self, targets: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"control": tuple(targets)}

    def run_label(self, *, mixture: str, scoring: str) -> str:
        return scoring
