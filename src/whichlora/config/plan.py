"""Plan of a run: its spec with the variant, task, model and items needed to carry it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from whichlora.config.base_model import BaseModel
from whichlora.config.hyperparameters import adapted_shapes
from whichlora.config.spec import RunSpec
from whichlora.data.encoding import Encoder
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Item, Task
from whichlora.evaluation.scoring_methods import Scoring
from whichlora.models.loading import ModelShape, ModelSource
from whichlora.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase  # options are resolved without it


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Items that a run is scored on, with the scoring method.

    Attributes:
        role: `en` or `tl`; for word pairs `control` or `trained` (the training pairs themselves).
        language: `en`, or the target language as named by the option `language`.
        digest: SHA-256 of the items' texts.
        retained: whether the task is not trained, but scored to measure forgetting.
    """

    __test__: ClassVar[bool] = False  # keeps pytest from collecting the class

    role: str
    language: str
    task: Task
    items: Sequence[Item]
    scoring: Scoring
    digest: str
    retained: bool = False

    @property
    def name(self) -> str:
        """The name of the test set in metrics and artifacts."""
        return f"retention/{self.role}" if self.retained else self.role

    @property
    def title(self) -> str:
        """The name shown to users."""
        return f"{self.task.name}, not trained, {self.language}" if self.retained else self.language


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run spec with everything needed to carry it out.

    Attributes:
        scoring: scores the validation items, and the test items of the trained task.
        tests: the test sets by name.
    """

    spec: RunSpec
    variant: Variant
    task: Task
    scoring: Scoring
    model: BaseModel
    mixture: Mixture
    tests: Mapping[str, TestSet]

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
        """The run's name in MLflow."""
        spec = self.spec
        composition = "" if spec.composition == "substitution" else f" {spec.composition}"
        label = self.task.run_label(mixture=f"{spec.tl_ratio:g}{composition}", scoring=spec.scoring)
        return f"{spec.variant}-{spec.arm} {spec.task} en+{spec.language} {label} seed {spec.seed}"

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
