"""The run spec: all resolved values that determine a run's result, and the fingerprints that identify it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from whichlora.data.chat import NONE

SPEC_VERSION = 8
"""Incremented whenever the same spec could give another number, so that older runs are never reused silently."""

NO_SOURCE = "none"
"""Value of the param `source_language` of a run whose task has no source language."""
TASK_OPTION = "task_option"
"""Param with the option `task` of a run whose task is not one of the package."""
TASK_FILE = "task.yaml"
"""Artifact with the declaration of a run's task."""

_NOT_IDENTITY = {"model"}
"""Fields with the location of something whose content is identified by a digest in the spec."""

_NOT_TRAINING = {"arm", "test_size", "test_digests"}
"""Fields that name or score an adapter but do not change it."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """The resolved values of one run; the training fields are None if nothing is trained.

    Attributes:
        tl_ratio: number of target-language items as a share of `train_size`.
        composition: with "substitution" the target items count towards `train_size`, with "addition" they are extra.
        validation_size, test_size: items per language; a test size of None means all items.
        rank: for AdaLoRA the final budget; None for `full`, `none` and adapters without a rank.
        epochs: passes over the mixture.
        batch_size: items per optimiser step; running out of memory only shrinks the micro-batch.
        warmup: share of the steps over which the learning rate rises.
        target_modules: names of the adapted linear layers within a decoder block.
        layers: adapted decoder blocks, counted from 0.
        variant_options: the variant's own settings by name.
        prompt_language: whether instruction and labels are in English (`en`) or in each item's language (`item`).
        train_digest: SHA-256 of the training texts and of the texts that select the checkpoint, in order.
        test_digests: SHA-256 of the scored texts, by name of the test set (`en`, `tl`, `retention/en`, ...).
        model_digest: digest of the base model, independent of its location.
        chat_template: digest of the chat template of prompts and answers, or `none`.
    """

    variant: str
    arm: str
    task: str
    difficulty: str
    language: str
    model: str
    tl_ratio: float
    composition: str
    train_size: int
    validation_size: int
    test_size: int | None
    seed: int
    rank: int | None
    alpha: float | None
    dropout: float | None
    learning_rate: float | None
    epochs: int | None
    batch_size: int | None
    warmup: float | None
    weight_decay: float | None
    scheduler: str | None
    target_modules: tuple[str, ...]
    layers: tuple[int, ...]
    variant_options: Mapping[str, Any]
    scoring: str
    select_on: str
    precision: str
    quantization: str
    prompt_language: str
    prompt_version: str
    train_digest: str
    test_digests: Mapping[str, str]
    model_digest: str
    chat_template: str = NONE

    def __post_init__(self) -> None:
        # 16 and 16.0, or 0.0 and -0.0, are equal but differ in JSON, and so in the fingerprint.
        for name in ("tl_ratio", "alpha", "dropout", "learning_rate", "warmup", "weight_decay"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, float(value) + 0.0)

    @property
    def identity(self) -> dict[str, Any]:
        """The values of `to_dict`; a field added later is left out if its value gives the numbers of before.

        Specs without a chat template therefore keep the fingerprints that they had before there was such a field.
        """
        return {name: value for name, value in self.to_dict().items() if (name, value) != ("chat_template", NONE)}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `spec_version` as JSON-compatible values."""
        return {"spec_version": SPEC_VERSION, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Rebuild a spec from the result of `to_dict`.

        Raises:
            ValueError: `values` has another spec version.
        """
        if values.get("spec_version") != SPEC_VERSION:
            raise ValueError(f"spec_version {values.get('spec_version')} is not {SPEC_VERSION}")
        arguments = {f.name: values[f.name] for f in fields(cls) if f.name != "chat_template" or f.name in values}
        for name in ("target_modules", "layers"):
            arguments[name] = tuple(arguments[name])
        return cls(**arguments)

    @property
    def fingerprint(self) -> str:
        """Digest that identifies the result: equal specs give the same numbers and are the same row of a table."""
        return _digest(self.identity, without=_NOT_IDENTITY)

    @property
    def training_fingerprint(self) -> str:
        """Digest that identifies the adapter.

        At ratio 0 it excludes the target language, which has no effect on training: one adapter serves all languages.
        """
        without = _NOT_IDENTITY | _NOT_TRAINING
        if self.tl_ratio == 0 and self.select_on == "en":
            without = without | {"language"}
        return _digest(self.identity, without=without)


def _digest(values: Mapping[str, Any], *, without: set[str]) -> str:
    return canonical_digest({k: v for k, v in values.items() if k not in without})


def canonical_digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value, serialised with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
