"""The run spec: everything that decides one result, resolved, and the fingerprints that identify it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

SPEC_VERSION = 7
"""Rises whenever the same spec could give another number, so that older runs are never reused silently."""

_NOT_IDENTITY = {"model"}
"""Fields that tell where something is, not what it is; digests stand for them."""

_NOT_TRAINING = {"arm", "test_size", "test_digests"}
"""Fields that name or score an adapter but do not change it."""


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run, with every value resolved. Training fields are None where nothing is trained.

    Attributes:
        tl_ratio: how many target items there are, as a share of `train_size`.
        composition: "substitution" takes the target items out of `train_size`, "addition" adds them to it.
        validation_size, test_size: items in each language; no test size stands for every item there is.
        rank: AdaLoRA's is its final budget; `full` and `none` have none.
        epochs: passes over the mixture.
        batch_size: items an optimiser step; memory only changes the micro-batch.
        warmup: share of the steps over which the learning rate rises.
        target_modules: names of the adapted linear layers within a decoder block.
        layers: decoder blocks that are adapted, counted from 0.
        variant_options: the variant's own settings by name.
        prompt_language: instruction and labels are in English (`en`) or in each item's language (`item`).
        train_digest: SHA-256 of the texts trained on and of those the checkpoint is chosen on, in order.
        test_digests: SHA-256 of the texts scored, by `en` and `tl`.
        model_digest: what the base model is, wherever it lies.
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

    def __post_init__(self) -> None:
        # 16 and 16.0, or 0.0 and -0.0, are equal but are written differently in JSON.
        for name in ("tl_ratio", "alpha", "dropout", "learning_rate", "warmup", "weight_decay"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, float(value) + 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `spec_version` as JSON values."""
        return {"spec_version": SPEC_VERSION, **json.loads(json.dumps(asdict(self)))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: another spec version wrote it.
        """
        if values.get("spec_version") != SPEC_VERSION:
            raise ValueError(f"spec_version {values.get('spec_version')} is not {SPEC_VERSION}")
        own = {f.name: values[f.name] for f in fields(cls)}
        for name in ("target_modules", "layers"):
            own[name] = tuple(own[name])
        return cls(**own)

    @property
    def fingerprint(self) -> str:
        """Identify the result: equal for specs that must give the same numbers and mean the same row."""
        return _digest(self.to_dict(), without=_NOT_IDENTITY)

    @property
    def training_fingerprint(self) -> str:
        """Identify the adapter: at ratio 0 the target language plays no part, so one adapter serves every language."""
        without = _NOT_IDENTITY | _NOT_TRAINING
        if self.tl_ratio == 0 and self.select_on == "en":
            without = without | {"language"}
        return _digest(self.to_dict(), without=without)


def _digest(values: Mapping[str, Any], *, without: set[str]) -> str:
    return canonical_digest({k: v for k, v in values.items() if k not in without})


def canonical_digest(value: Any) -> str:
    """Return the SHA-256 (hex) of a JSON value written with sorted keys and no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
