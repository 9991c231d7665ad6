"""Fills a tracking database with invented runs in the project's contract, without training anything."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from whichlora.config.spec import RunSpec
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.run_log import param_text

LABELS = ("entailment", "neutral", "contradiction")
BASE, FLOORS = {"en": 0.34, "tl": 0.33}, {"en": 0.66, "tl": 0.7}
PARAMETERS = {"lora": 2_442_240, "dora": 2_597_760, "vera": 209_280, "adalora": 3_665_880, "pissa": 2_442_240}


def spec(variant: str = "lora", **fields: Any) -> RunSpec:
    """Return a resolved spec of the packaged task, with some fields set."""
    ratio = fields.get("tl_ratio", 0.5)
    language = fields.get("language", "sw")
    usual = {
        **{"arm": "matched", "task": "atlas-nli", "difficulty": "normal", "language": "sw", "model": "smollm2-135m"},
        **{"tl_ratio": 0.5, "composition": "substitution", "train_size": 600, "validation_size": 60},
        **{"test_size": 60, "seed": 1, "rank": 256 if variant == "vera" else 8, "alpha": 16.0, "dropout": 0.0},
        **{"learning_rate": 0.002, "epochs": 1, "batch_size": 4, "warmup": 0.05, "weight_decay": 0.0},
        **{"scheduler": "linear", "target_modules": ("q_proj", "v_proj"), "layers": tuple(range(30))},
        **{"variant_options": {}, "scoring": "likelihood", "precision": "fp32", "quantization": "none"},
        **{"prompt_language": "en", "prompt_version": "nli-1", "model_digest": "e8f3", "train_digest": "0"},
        "select_on": "en" if ratio == 0 else "mean",
        "test_digests": {"en": "test en", "tl": f"test {language}"},
    }
    return RunSpec(variant=variant, **{**usual, **fields})


def truth(spec: RunSpec, outcome: str, effects: Mapping[str, float], noise: float) -> float:
    """Return the F1 of a run: a level of its block, its method's effect, and what its seed and adapter add."""
    english_only = outcome == "en" and spec.tl_ratio == 0
    block = f"{outcome} {'' if english_only else spec.language} {spec.tl_ratio}"
    level = {"en": 0.8, "tl": 0.6 + 0.2 * spec.tl_ratio}[outcome] + 0.05 * _draw("block", block).standard_normal()
    by_seed = 0.005 * _draw("seed", block, spec.seed).standard_normal()
    own = noise * _draw("run", block, spec.seed, spec.variant, spec.arm).standard_normal()
    return float(np.clip(level + effects.get(spec.variant, 0.0) + by_seed + own, 0.02, 0.98))


def log_run(
    spec: RunSpec,
    experiment: str,
    *,
    f1: Mapping[str, float] | None = None,
    effects: Mapping[str, float] | None = None,
    noise: float = 0.005,
    status: str = "FINISHED",
    items: int = 60,
    more: Mapping[str, float] | None = None,
    names: Mapping[str, str] | None = None,
) -> str:
    """Log one run and return its id. Its F1 is `f1` by outcome, else `truth`; with no `items` it has no predictions.

    `names` are the params that name the languages and the headline metric; without a source language there are no
    scores in it.
    """
    client = connect()
    names = names or {}
    params = {**spec.to_dict(), "version/whichlora": "0.1.0", **names}
    tags = {"kind": "run", "experiment": experiment, "fingerprint": spec.fingerprint}
    tags["training_fingerprint"] = spec.training_fingerprint
    metrics: list[Metric] = []
    name = f"{spec.variant}-{spec.arm} {spec.task} en+{spec.language} {spec.tl_ratio:g} seed {spec.seed}"
    run = client.create_run(experiment_id(client, experiment), run_name=name)
    if status == "FAILED":
        tags["error"] = "ProofError: module q_proj gets no gradient"
    elif status == "FINISHED":
        outcomes = ("tl",) if names.get("source_language") == "none" else ("en", "tl")
        scores = {o: (f1 or {}).get(o, truth(spec, o, effects or {}, noise)) for o in outcomes}
        if items:
            with tempfile.TemporaryDirectory() as scratch:
                for outcome in scores:
                    frame = predictions(spec, outcome, scores[outcome], items)
                    scores[outcome] = float((frame["gold"] == frame["predicted"]).mean())
                    frame.to_parquet(Path(scratch) / f"{outcome}.parquet")
                client.log_artifacts(run.info.run_id, scratch, "predictions")
        values = {**_metrics(spec, scores, names.get("headline", "f1")), **(more or {})}
        metrics = [Metric(key, value, 0, 0) for key, value in values.items()]
        metrics += [Metric("train/loss", 1.2 * 0.9**step + 0.1, 0, step) for step in range(1, 30, 4)]
    client.log_batch(
        run.info.run_id,
        metrics=metrics,
        params=[Param(key, param_text(value)) for key, value in params.items()],
        tags=[RunTag(f"whichlora.{key}", value) for key, value in tags.items()],
    )
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def _metrics(spec: RunSpec, scores: Mapping[str, float], headline: str) -> dict[str, float]:
    size = PARAMETERS.get(spec.variant, 2_000_000)
    clock = 300 + size / 1e5 + 5 * _draw("clock", lasting(spec, "fingerprint")).standard_normal()
    return {
        **{f"test/{outcome}/f1": 0.5 for outcome in scores},
        **{f"test/{outcome}/{headline}": score for outcome, score in scores.items()},
        **{f"base/{outcome}/{headline}": BASE[outcome] for outcome in scores},
        **{f"gain/{outcome}": score - BASE[outcome] for outcome, score in scores.items()},
        **{"adapter/trainable_parameters": size, "adapter/trainable_percent": size / 1.345e6},
        **{"train/seconds": clock, "train/examples_per_second": 600 / clock},
        **{"host/memory_max_mb": 2000 + size / 1e4},
        **{f"floor/{outcome}/overlap": FLOORS[outcome] for outcome in scores},
    }


def predictions(spec: RunSpec, outcome: str, f1: float, items: int) -> pd.DataFrame:
    """Return predictions with this share of right answers, the easy items of a test set first."""
    ids = [f"{spec.task}-{i}" for i in range(items)]
    gold = [LABELS[i % 3] for i in range(items)]
    ease = _draw("items", spec.test_digests[outcome]).standard_normal(items)
    chance = _draw("answers", lasting(spec, "training_fingerprint"), spec.test_digests[outcome])
    right = set(np.argsort(-(ease + chance.standard_normal(items)))[: round(f1 * items)])
    predicted = [gold[i] if i in right else LABELS[(i + 1) % 3] for i in range(items)]
    sure = chance.uniform(0.4, 0.99, items)
    columns = {f"p_{label}": np.where(np.array(predicted) == label, sure, (1 - sure) / 2) for label in LABELS}
    return pd.DataFrame({"id": ids, "gold": gold, "predicted": predicted, **columns})


def log_design(
    experiment: str,
    *,
    methods: Iterable[tuple[str, str]] = (("lora", "matched"), ("dora", "matched"), ("vera", "matched")),
    languages: Sequence[str] = ("sw", "ur"),
    ratios: Sequence[float] = (0.0, 0.5),
    seeds: Sequence[int] = (1, 2, 3),
    fields: Mapping[str, Any] | None = None,
    **options: Any,
) -> list[str]:
    """Log a run for every cell of a full design; `fields` are the spec's, `options` those of `log_run`."""
    return [
        log_run(
            spec(variant, **(fields or {}), arm=arm, language=language, tl_ratio=ratio, seed=seed),
            experiment,
            **options,
        )
        for variant, arm in methods
        for ratio in ratios
        for language in languages
        for seed in seeds
    ]


def lasting(spec: RunSpec, fingerprint: str) -> str:
    """Return a fingerprint as it was in spec version 5, so that what is drawn by it stays when the version rises."""
    with patch("whichlora.config.spec.SPEC_VERSION", 5):
        return str(getattr(spec, fingerprint))


def _draw(*key: Any) -> np.random.Generator:
    """Return a generator of its own for a key, the same in every process."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big"))
