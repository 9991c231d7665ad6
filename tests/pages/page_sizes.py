"""Cuts what the pages train to a tiny model, a few methods and a few items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

FEW = {"train_size": "16", "validation_size": "6", "test_size": "4", "epochs": "1", "batch_size": "8"}
SIZES: dict[str, dict[str, str]] = {
    "run": {"model": "tiny", **FEW},
    "tune": {"model": "tiny", **FEW, "trials": "2", "workers": "1", "precision": "fp32"},
    "compare": {"model": "tiny", **FEW, "workers": "1", "max_seeds": "3"},
    "probe": {"items": "6"},
    "experiment": {"workers": "1"},
    "learning-rates": {"workers": "1", "file": "tuning/sweeps/packaged.yaml"},
    "variants": {"model": "tiny"},
    "data": {"model": "tiny"},
    "precision": {"experiments": "pocket,pocket-fp32"},
    "tuning-points": {"train_size": "64", "validation_size": "6", "rungs": "2", "trials": "4", "model": "tiny"},
    "tuning-overhead": {"train_size": "16", "validation_size": "6", "pairs": "1", "model": "tiny"},
    "packed": {"adapters": "2", "items": "1", "turns": "1", "blocks": "1", "width": "128"},
    "halving": {"draws": "1", "settings": "smooth"},
}
"""Options of a command that are added to those of the page, or replace them, but for files, which stay."""
WHEN_GIVEN = {
    "rank": "4",
    "retention_size": "6",
    "alignment_size": "6",
    "budget": "1",
    "rungs": "2",
    "model": "tiny",
}
"""Values that replace those of a page."""
ARMS = {"lora-and-full": 3}
"""Number of arms of an experiment that are kept, where two would lack something that a page reads."""
BLOCK = "model.layers.1.mlp.down_proj"
"""A layer that the tiny model has."""


def sized(name: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command in a small size; of several variants two stay, or one where a bracket runs."""
    result = list(arguments)
    given = {word: at + 1 for at, word in enumerate(result) if word.startswith("--")}
    size = SIZES.get(name, {}) | {k: v for k, v in WHEN_GIVEN.items() if f"--{k}" in given}
    if "--file" in given:
        size = {key: value for key, value in size.items() if key in ("workers", "max_seeds")}
    if name == "probe" and "--run_id" not in given:
        size = size | {"model": "tiny"}
    if "retrieval" in arguments:
        size = size | {"items": "3"}  # all that the invented file has
    if name in ("predict", "export") or "weights" in arguments or set(arguments) & {"--help", "--version"}:
        size = {}
    if "--rungs" in given and "trials" in size:  # one bracket with 4 batches at least
        size = size | {"trials": "4", "train_size": "32", "batch_size": "2"}
    if "--tune" in given:
        size = size | {"tune": "0.1", "trials": "2", "rungs": "1"}
    if name in ("tune", "compare") and "--variant" in given:
        variants = result[given["--variant"]].split(",")
        size = size | {"variant": ",".join(variants[: 1 if "--rungs" in given else 2])}
    for option, value in size.items():
        if f"--{option}" in given:
            result[given[f"--{option}"]] = value
        else:
            result += [f"--{option}", value]
    return result


def small(
    content: dict[str, Any], *, model: str, data: Callable[[str], Path], arms: int | None = None
) -> dict[str, Any]:
    """Return the small form of an experiment or a sweep: the last ratio, the first of other values, two arms and seeds.

    Args:
        content: that of `whole`.
        model: folder of the model that takes the place of the file's own.
        data: returns the folder of the data of a task.
        arms: number of arms to keep.
    """
    defaults: dict[str, Any] = {k: int(v) for k, v in FEW.items()} | {"seed": [1, 2]}
    if "data_dir" in content["defaults"]:
        task = content["defaults"].get("task")
        defaults["data_dir"] = str(data(task if task in ("tydiqa", "sib200") else "xnli"))
    result = content | {"defaults": content["defaults"] | defaults | {"model": model}}
    values = result["defaults"]
    for name in values.keys() - {"seed"}:
        if isinstance(values[name], list):
            values[name] = values[name][-1 if name == "tl_ratio" else 0]
    for name in values.keys() & {"retention_size", "alignment_size"}:
        values[name] = 6
    if "sweep" in result:
        result["sweep"] = {"best": 1, "changes": {"warmup": [0.5]}}
    kept = [arm for arm in content["arms"] if "model" not in arm and "data_dir" not in arm]
    result["arms"] = [_small_arm(arm) for arm in kept[: arms or ARMS.get(content["name"], 2)]]
    return result


def whole(file: Path) -> dict[str, Any]:
    """Return the content of a file of experiments with that of the files it extends."""
    content = dict(yaml.safe_load(file.read_text(encoding="utf-8")))
    content.setdefault("defaults", {})
    if parent := content.pop("extends", None):
        above = whole(file.parent / parent)
        return above | content | {"defaults": above["defaults"] | content["defaults"]}
    return content


def _small_arm(arm: dict[str, Any]) -> dict[str, Any]:
    result = {key: _first(value, 2) if key == "variant" else _first(value) for key, value in arm.items()}
    for key in result.keys() & {"epochs", "batch_size", "retention_size", "language"}:
        del result[key]
    if "rank" in result:
        result["rank"] = 4
    if isinstance(result.get("options", {}).get("selection"), list):  # a tenth of a tiny model is too little for them
        result["options"] = {"selection": ["v_proj", BLOCK], "full_share": 0.5}
    return result


def _first(value: Any, n: int = 1) -> Any:
    if isinstance(value, list):
        return value[:n] if n > 1 else value[0]
    return value
