"""An example of a variant and of a task that whichlora does not contain."""

from __future__ import annotations

from typing import Any

from whichlora.data.tasks import Sizes
from whichlora.data.tasks.base import SPLITS
from whichlora.data.tasks.items import LABELS, NliItem
from whichlora.data.tasks.nli import NliTask
from whichlora.errors import ProofError, check_choice
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants import Hyperparameters, Variant
from whichlora.variants.methods.lora import check_scaling, lora_config
from whichlora.variants.witness import Evidence, check_changed


def _freeze_a(model: Any) -> None:
    for _, module in adapter_modules(model):
        module.lora_A.requires_grad_(False)


def _only_b_trained(model: Any, evidence: Evidence) -> None:
    check_scaling(model, evidence, exponent=1.0)
    check_changed(model, evidence, "lora_B")
    others = [name for name in evidence.trainable if "lora_B" not in name]
    if others:
        raise ProofError(f"{others[0]} is trained beside B")


LORA_B = Variant(
    name="lora-b",
    title="LoRA-B",
    paper="Zhang et al. 2023 (LoRA-FA), arXiv 2308.03303",
    recommended=Hyperparameters(
        rank=8,
        alpha=16,
        learning_rate=2e-3,
        epochs=1,
        batch_size=4,
        warmup=0.05,
        source="invented for this example",
    ),
    matched_learning_rate=None,
    build=lora_config,
    after_attach=_freeze_a,
    expected_parameters=lambda shapes, rank, options: rank * sum(n_out for _, n_out in shapes.values()),
    witness=_only_b_trained,
)

_HEIGHTS = {"en": "{} is taller than {}.", "sw": "{} ni mrefu kuliko {}."}
_PEOPLE = ("Ada", "Bo", "Cy", "Di", "Ed", "Fay")
_FIRST = dict(zip(SPLITS, (0, 60, 90), strict=True))


class Heights(NliTask):
    """Premises that compare two people, in two languages. The hypothesis says the same, the reverse, or neither."""

    name = "heights"
    languages = ("en", "sw")
    pooled = ("sw",)
    parallel = True
    sizes = Sizes(train=60, validation=30, test=30)

    def load(
        self, language: str, split: str, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[NliItem, ...]:
        check_choice("language", language, self.languages)
        check_choice("split", split, SPLITS)
        check_choice("difficulty", difficulty, self.difficulties)
        text = _HEIGHTS[language]
        items = []
        for index in range(60 if split == "train" else 30):
            number = _FIRST[split] + index
            tall, short = f"{_PEOPLE[number % 6]} {number}", f"{_PEOPLE[number % 5]} {number + 1}"
            label = LABELS[index % 3]
            pair = {"entailment": (tall, short), "neutral": (tall, "Gus"), "contradiction": (short, tall)}[label]
            items.append(
                NliItem(
                    index=index,
                    id=str(number),
                    language=language,
                    stratum=label,
                    premise=text.format(tall, short),
                    hypothesis=text.format(*pair),
                    label=label,
                )
            )
        return tuple(items)
