"""Invented language probes in the contract of `whichlora.probing`, with shares of known truth."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag
from synthetic import lasting

from whichlora.config.spec import RunSpec, canonical_digest
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.request import as_params
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.run_log import param_text

LAYERS = 12
CEILING = {"token": (0.04, 0.11), "sequence": (0.0, 1.0)}
"""Of English and the target language, by level."""
KAPPA = {"kappa/token": 0.52, "kappa/sequence": 0.31}
Shares = Mapping[tuple[str, str, int], float]
"""By level, "english" or "target", and layer."""


def shape(layers: int = LAYERS) -> dict[tuple[str, str, int], float]:
    """Return shares as a model has them: other at first, then English, and the target language at the end."""
    depth = np.arange(1, layers + 1) / layers
    english = 0.05 + 0.4 * np.exp(-(((depth - 0.75) / 0.18) ** 2))
    target = 0.01 + 0.1 * np.clip((depth - 0.7) / 0.3, 0, 1) ** 1.5
    found: dict[tuple[str, str, int], float] = {}
    for level, stretch in (("token", 1.0), ("sequence", 2.0)):
        for kind, values, top in zip(("english", "target"), (english, target), CEILING[level], strict=True):
            found[level, kind, -1] = top
            found |= {(level, kind, i): float(min(1.0, stretch * value)) for i, value in enumerate(values)}
    return found


def shares_of(
    spec: RunSpec, f1: float, *, slopes: Mapping[tuple[str, int], float] | None = None, layers: int = LAYERS
) -> dict[tuple[str, str, int], float]:
    """Return a run's shares: `shape`, its own noise, and for some (kind, layer) a slope on F1 (0 to 1)."""
    noise = np.random.default_rng(int(canonical_digest([lasting(spec, "fingerprint")])[:12], 16))
    found = {}
    for (level, kind, layer), value in shape(layers).items():
        moved = 0.0 if layer < 0 else 0.004 * noise.standard_normal() + (slopes or {}).get((kind, layer), 0.0) * f1
        found[level, kind, layer] = float(np.clip(value + moved, 0, 1))
    return found


def layer_table(shares: Shares, items: int = 60) -> pd.DataFrame:
    """Return the content of `layers.parquet`."""
    rows = []
    for level in ("token", "sequence"):
        for layer in sorted({layer for _, _, layer in shares}):
            own = [shares[level, kind, layer] for kind in ("english", "target")]
            for kind, value in zip(("english", "target", "other"), (*own, 1 - sum(own)), strict=True):
                rows.append((layer, f"{level}/{kind}", value, value - 0.01, value + 0.01, items))
    return pd.DataFrame(rows, columns=["layer", "measure", "value", "low", "high", "n"])


def log_probe(
    spec: RunSpec,
    experiment: str,
    *,
    source: str | None,
    shares: Shares | None = None,
    status: str = "FINISHED",
    file: bool = True,
    kind: str = "language",
    metrics: Mapping[str, float] = KAPPA,
    table: pd.DataFrame | None = None,
    digest: str | None = None,
    **choices: Any,
) -> str:
    """Log a probe of a run, or with no `source` of its base model, and return its id.

    `table` is its `layers.parquet`, by default that of a language probe with these `shares`. `digest` stands for other
    items than the run's; what else is named is a choice, or any other param.
    """
    client = connect()
    identity = {
        "probe_version": 1,
        "kind": kind,
        "model_digest": spec.model_digest,
        "source_fingerprint": spec.fingerprint if source else "",
        "precision": spec.precision,
        "quantization": spec.quantization,
        "seed": 42,
        **as_params(LanguageChoices()),
        "language": spec.language,
        "items": spec.test_size,
        "items_digest": digest or spec.test_digests["tl"],
        "min_bytes": 0,
        "max_bytes": 1000,
        **choices,
    }
    tags = {"kind": "probe", "fingerprint": canonical_digest(identity)}
    params = {**identity, "model": spec.model, "version/cld3-py": "3.1.0"}
    if source:
        tags["source"] = source
        params |= {f"source/{name}": getattr(spec, name) for name in ("variant", "arm", "language", "seed")}
    if status == "FAILED":
        tags["error"] = "ProofError: the last layer does not decode to the prediction"
    run = client.create_run(experiment_id(client, experiment), run_name=f"{kind} of {spec.variant}")
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(key, value, 0, 0) for key, value in metrics.items()],
        params=[Param(key, param_text(value)) for key, value in params.items()],
        tags=[RunTag(f"whichlora.{key}", value) for key, value in tags.items()],
    )
    if status == "FINISHED" and file:
        with tempfile.TemporaryDirectory() as scratch:
            content = layer_table(shares or shape()) if table is None else table
            content.to_parquet(Path(scratch) / "layers.parquet", index=False)
            client.log_artifacts(run.info.run_id, scratch)
    if status != "RUNNING":
        client.set_terminated(run.info.run_id, status)
    return run.info.run_id


def aligned_table(best: int = 7, top: float = 0.3, *, cka: bool = False, pairs: int = 100) -> pd.DataFrame:
    """Return `layers.parquet` of an alignment probe whose centred gap is highest, `top`, after block `best`."""
    rows = []
    for layer in range(-1, LAYERS):
        gap = top - 0.02 * abs(layer - best)
        for space, scale in (("raw", 0.1), ("centred", 1.0)):
            values = {"cosine/translation": 0.9 * scale, "cosine/random": 0.9 * scale - scale * gap}
            values |= {"cosine/gap": scale * gap, "p1/to": gap, "p1/from": gap / 2, "mrr/to": 0.5, "mrr/from": 0.4}
            rows += [(layer, f"{name}/{space}", v, v - 0.01, v + 0.01, pairs) for name, v in values.items()]
        similar = (("cka/english", 0.99 - 0.01 * layer), ("cka/translation", 0.9 - 0.01 * layer)) if cka else ()
        rows += [(layer, name, v, np.nan, np.nan, pairs) for name, v in similar]
    return pd.DataFrame(rows, columns=["layer", "measure", "value", "low", "high", "n"])


def weight_table(norm: float = 0.02, rank: float = 8.0, *, overlap: float | None = None) -> pd.DataFrame:
    """Return `layers.parquet` of a weight probe: two modules a layer, of which the last layer has one."""
    rows: list[tuple[int, str, float, float, float, int]] = []
    for layer in range(LAYERS):
        modules = ("q_proj", "v_proj") if layer < LAYERS - 1 else ("q_proj",)
        values = {"relative_norm": norm * (1 + layer), "spectral_norm": 3 * norm, "stable_rank": 1.5, "rank": rank}
        if overlap is not None:
            values |= {"overlap_out": overlap, "overlap_in": overlap / 2, "chance_out": 0.01, "chance_in": 0.02}
        for name, value in values.items():
            rows += [(layer, f"{name}/{module}", value, np.nan, np.nan, 1) for module in modules]
            rows.append((layer, name, value, np.nan, np.nan, len(modules)))
    return pd.DataFrame(rows, columns=["layer", "measure", "value", "low", "high", "n"])


def log_aligned(spec: RunSpec, experiment: str, *, source: str | None, table: pd.DataFrame, **more: Any) -> str:
    """Log an alignment probe of a run, or with no `source` of its base model."""
    pairs = int(table["n"].max())
    chance = {"chance/p1": 1 / pairs, "chance/mrr": 0.05}
    choices = {"pairs": "words", "first_token": "drop", "items": pairs, "digest": "words", "against": "", **more}
    return log_probe(spec, experiment, source=source, kind="alignment", table=table, metrics=chance, **choices)
