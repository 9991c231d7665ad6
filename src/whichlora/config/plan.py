"""A plan: a run spec with the variant, the task, the model and the items that it takes to carry it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from whichlora.config.hyperparameters import adapted_shapes
from whichlora.config.spec import RunSpec
from whichlora.data.encoding import Encoder
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Item, Task
from whichlora.evaluation.scoring import Scoring
from whichlora.models.loading import ModelShape, ModelSource
from whichlora.variants import Variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Items that a run is scored on, and how.

    Attributes:
        role: `en` and `tl`, or for word pairs `control` and `trained` (the very pairs that are trained).
        language: `en`, or the target language as the option `language` names it.
        digest: SHA-256 of its texts.
        retained: whether its task is not the one that is trained, but one to measure forgetting by.
    """

    __test__: ClassVar[bool] = False  # no class of tests, for pytest

    role: str
    language: str
    task: Task
    items: Sequence[Item]
    scoring: Scoring
    digest: str
    retained: bool = False

    @property
    def name(self) -> str:
        """The name that its metrics and predictions go by."""
        return f"retention/{self.role}" if self.retained else self.role

    @property
    def title(self) -> str:
        """The name that a person reads."""
        return f"{self.task.name}, not trained, {self.language}" if self.retained else self.language


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run spec with what it takes to carry it out.

    Attributes:
        scoring: how the validation items are scored, and the test items of the trained task.
        tests: the test sets by name.
    """

    spec: RunSpec
    variant: Variant
    task: Task
    scoring: Scoring
    source: ModelSource
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    mixture: Mixture
    tests: Mapping[str, TestSet]

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

    def encoder(self, task: Task | None = None) -> Encoder:
        """Return an encoder of the plan's task, or of another one, for its model."""
        return Encoder(task or self.task, self.tokenizer, max_length=self.shape.context)
