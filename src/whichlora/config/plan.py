"""Plan of a run: its spec with the variant, task, model and items needed to carry it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, ClassVar

from whichlora.config.base_model import BaseModel
from whichlora.config.hyperparameters import adapted_shapes
from whichlora.config.options import RUN_OPTIONS, RunOptions
from whichlora.config.spec import RunSpec
from whichlora.data.encoding import Encoder
from whichlora.data.general_text import GeneralText
from whichlora.data.language_names import join_names
from whichlora.data.mixture import Mixture
from whichlora.data.targets import POOLED, target_languages
from whichlora.data.tasks import NAMES, Item, Task
from whichlora.data.tasks.pairs.sentences import Tatoeba
from whichlora.evaluation.scoring_methods import Scoring
from whichlora.models.loading import ModelShape, ModelSource
from whichlora.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase  # options are resolved without it


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Items that a run is scored on, with the scoring method.

    Attributes:
        role: `en` (source language) or `tl` (target languages); for word pairs `control` or `trained` (the training
            pairs themselves).
        language: the code of the source language, or the target languages as named by the option `language`.
        digest: SHA-256 of the items' texts.
        group: `retention` or `alignment` for a task that is not trained; empty for the trained task.
        suffix: end of the name, if several test sets have the same role.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting the class

    role: str
    language: str
    task: Task
    items: Sequence[Item]
    scoring: Scoring
    digest: str
    group: str = ""
    suffix: str = ""

    @property
    def trained(self) -> bool:
        """Whether the items are of the task that is trained."""
        return not self.group

    @property
    def name(self) -> str:
        """The name of the test set in metrics and artifacts."""
        return f"{self.group}/{self.role}{self.suffix}" if self.group else self.role

    @property
    def title(self) -> str:
        """The name shown to users."""
        names = self.language if self.language == POOLED else join_names(target_languages(self.task, self.language))
        return names if self.trained else f"{self.task.name}, not trained, {names}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run spec with everything needed to carry it out.

    Attributes:
        scoring: scores the validation items, and the test items of the trained task.
        tests: the test sets by name.
        texts: the general texts whose cross-entropy is measured, by name.
        options: what the plan was resolved from.
    """

    spec: RunSpec
    variant: Variant
    task: Task
    scoring: Scoring
    model: BaseModel
    mixture: Mixture
    tests: Mapping[str, TestSet]
    options: RunOptions
    texts: Mapping[str, GeneralText] = field(default_factory=dict)

    @property
    def source(self) -> ModelSource:
        """The location and identity of the base model."""
        return self.model.source

    @property
    def shape(self) -> ModelShape:
        """The shape of the base model."""
        return self.model.shape

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the base model."""
        return self.model.tokenizer

    @property
    def name(self) -> str:
        """The run's name in MLflow: what runs are compared by, then what they often share.

        It ends with six digits of the fingerprint, since runs may differ in what is not named.
        """
        return f"{self.cell_name} seed {self.spec.seed} {self._setting} {self.spec.fingerprint[:6]}"

    @property
    def summary_name(self) -> str:
        """The beginning of the name of the summary over seeds."""
        return f"{self.cell_name} mean {self._setting}"

    @property
    def _setting(self) -> str:
        """The part of the name that runs of an experiment often share: task, model, and the size if it is unusual."""
        size = "" if self.spec.train_size == self.task.sizes.train else f" n={self.spec.train_size}"
        return f"{self.spec.task} {self.model_name}{size}"

    @property
    def cell_name(self) -> str:
        """The part of the name before the seed: method, target language, and mixture or scoring."""
        spec = self.spec
        composition = "" if spec.composition == "substitution" else f" {spec.composition}"
        label = self.task.run_label(mixture=f"{spec.tl_ratio:g}{composition}", scoring=spec.scoring)
        method = spec.variant if spec.arm == RUN_OPTIONS["arm"][0] else f"{spec.variant}-{spec.arm}"
        return f"{method} {spec.language} {label}"

    def trial_name(self, number: str | None) -> str:
        """Return the name of a trial, by its number in the study, if any, and its learning rate."""
        rate = f"lr {self.spec.learning_rate:g} {self.name}"
        return rate if number is None else f"trial {number} {rate}"

    @property
    def model_name(self) -> str:
        """The base model's name without its folder or owner."""
        return (PurePosixPath(self.spec.model).name or self.spec.model)[:60]

    def data_dir_of(self, task: Task) -> str | None:
        """Return the folder with the data of a test set's task, as the options give it; None if they do not.

        The data of a user's own retention task is beside its file.
        """
        if isinstance(task, Tatoeba):
            return self.options.alignment_dir or self.options.data_dir
        return self.options.data_dir if task is self.task or self.options.retention in NAMES else None

    @property
    def adapted(self) -> dict[str, tuple[int, int]]:
        """The linear layers that get an adapter, by full name, as (in_features, out_features)."""
        return adapted_shapes(self.shape, self.spec.target_modules, self.spec.layers)

    @property
    def not_adapted(self) -> str:
        """The matrices of the decoder blocks that the variant's adapter cannot reach, with their shares, or ""."""
        return self.shape.unadapted_text() if self.variant.has_adapter else ""

    def encoder(self, task: Task | None = None) -> Encoder:
        """Return an encoder of the plan's task, or of `task`, for the plan's model."""
        return self.model.encoder(task or self.task)
