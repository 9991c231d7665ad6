"""Invented runs of lexical injection in the contract of `whichlora.run`, with similarities of known truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from synthetic import _draw, lasting, spec

from whichlora.config.spec import RunSpec
from whichlora.evaluation import word_alignment
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.run_log import param_text

PAIRS = {"trained": 200, "control": 63}
START = {"cosine/translation/raw": 0.62, "cosine/random/raw": 0.61, "cosine/gap/centred": 0.10}
RETAINED = {"en": 0.62, "tl": 0.44}
"""F1 of the base model on the task that is not trained."""


def pair_spec(variant: str = "lora", *, pool_layer: int = 1, **fields: Any) -> RunSpec:
    """Return a resolved spec of word pairs, with some fields set."""
    language = fields.get("language", "sw")
    usual = {
        **{"arm": "recommended", "task": "align-words", "tl_ratio": 1.0, "train_size": 200, "validation_size": 63},
        **{"test_size": 63, "rank": 16, "alpha": 32.0, "layers": tuple(range(pool_layer + 1)), "epochs": 5},
        **{"batch_size": 8, "scoring": f"layer-{pool_layer}", "select_on": "control", "prompt_version": "pairs-1"},
        "test_digests": {"trained": f"{language} {fields.get('seed', 1)}", "control": language},
    }
    return spec(variant, **{**usual, **fields})


def log_injection(
    own: RunSpec,
    experiment: str,
    *,
    rise: float = 0.0,
    spread: float = 0.05,
    lost: float | None = None,
    without: tuple[str, ...] = (),
) -> str:
    """Log a run whose gap rises by `rise` in every set and place, and that loses `lost` of F1 on xnli; return its id.

    The raw cosine of translations and of random pairs rises by .15 more. Metrics that begin with `without` are left
    out.
    """
    client = connect()
    run = client.create_run(experiment_id(client, experiment), run_name=f"{own.variant} {own.language}")
    metrics = {**similarities(own, rise, spread), **_floors()}
    metrics |= {"train/loss": 0.4, "adapter/trainable_parameters": 1000.0 * (own.rank or 100)}
    if lost is not None:
        for role, base in RETAINED.items():
            after = base - lost + 0.002 * float(_draw("lost", lasting(own, "fingerprint"), role).standard_normal())
            metrics |= {f"base/retention/{role}/f1": base, f"test/retention/{role}/f1": after}
            metrics[f"gain/retention/{role}"] = after - base
        data = Dataset("xnli", "0", "local", "{}")
        tag = InputTag("mlflow.data.context", "test/retention/en")
        client.log_inputs(run.info.run_id, [DatasetInput(data, [tag])])
    kept = {name: value for name, value in metrics.items() if not name.startswith(without or ("nothing",))}
    tags = {"kind": "run", "fingerprint": own.fingerprint, "training_fingerprint": own.training_fingerprint}
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, 0, 0) for name, value in kept.items()],
        params=[Param(name, param_text(value)) for name, value in own.to_dict().items()],
        tags=[RunTag(f"whichlora.{name}", value) for name, value in tags.items()],
    )
    client.set_terminated(run.info.run_id)
    return run.info.run_id


def similarities(own: RunSpec, rise: float, spread: float) -> Mapping[str, float]:
    """Return means before and after, and the paired tests, of pairs with these rises."""
    metrics: dict[str, float] = {}
    for name, count in PAIRS.items():
        for place in ("pooled", "output"):
            random = _draw("pairs", lasting(own, "fingerprint"), name, place)
            for measure, start in START.items():
                before = start + 0.05 * random.standard_normal(count)
                more = rise if "gap" in measure else rise + 0.15 if "translation" in measure else 0.15
                after = before + more + spread * random.standard_normal(count)
                where = f"{name}/{place}/{measure}"
                metrics |= {f"base/{where}": float(before.mean()), f"test/{where}": float(after.mean())}
                if "random" not in measure:
                    tests = word_alignment.paired(before, after).items()
                    metrics |= {f"paired/{where}/{statistic}": value for statistic, value in tests}
            for way in ("to", "from"):
                for measure, value in (("p1", 0.15), ("mrr", 0.22)):
                    metrics[f"base/{name}/{place}/{measure}/{way}/centred"] = value
                    metrics[f"test/{name}/{place}/{measure}/{way}/centred"] = value + rise
        headline = f"{name}/pooled/cosine/gap/centred"
        metrics[f"gain/{name}"] = metrics[f"test/{headline}"] - metrics[f"base/{headline}"]
    return metrics


def _floors() -> dict[str, float]:
    ranks = {name: np.arange(1, count + 1) for name, count in PAIRS.items()}
    chance = {f"floor/{name}/mrr": float(np.mean(1 / rank)) for name, rank in ranks.items()}
    return chance | {f"floor/{name}/p1": 1 / count for name, count in PAIRS.items()}
