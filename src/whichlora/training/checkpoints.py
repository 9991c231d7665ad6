"""Reads and writes the checkpoints from which a killed run resumes; incomplete checkpoints are never read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from whichlora.training.verification import prove_finite, trainable_tensors
from whichlora.variants import Variant

_WEIGHTS, _METHOD, _COMPLETE = "trainable.safetensors", "method.pt", "complete.json"


def save_state(model: Any, variant: Variant, folder: Path) -> None:
    """Write the trainable tensors and the variant's own state to `folder`.

    Raises:
        NonFiniteError: A tensor is not finite; nothing is written. The names of folders end with the step.
    """
    trainable = trainable_tensors(model)
    prove_finite(trainable.items(), f"after step {folder.name.rpartition('-')[2]}")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().cpu().contiguous() for n, p in trainable.items()}
    save_file(tensors, folder / _WEIGHTS)
    if variant.method_state is not None:
        torch.save(variant.method_state(model), folder / _METHOD)


def load_state(model: Any, variant: Variant, folder: Path) -> None:
    """Load what `save_state` wrote into a model with the same adapter.

    Raises:
        RuntimeError: The trainable parameters differ from those saved.
        NonFiniteError: A saved tensor is not finite.
    """
    tensors = load_file(folder / _WEIGHTS)
    prove_finite(tensors.items(), f"in {folder}")
    parameters = trainable_tensors(model)
    if tensors.keys() != parameters.keys():
        raise RuntimeError(f"{folder} does not match the attached adapter: its trainable parameters differ")
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    if variant.restore_method_state is not None:
        variant.restore_method_state(model, torch.load(folder / _METHOD, map_location="cpu", weights_only=True))


def mark_complete(folder: Path, metadata: dict[str, Any]) -> None:
    """Mark the checkpoint in `folder` as complete, and store metadata with it."""
    write_json(folder / _COMPLETE, metadata)


def last_complete(work: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest complete checkpoint under `work` and its metadata, or None."""
    complete = [p for p in work.glob("checkpoint-*") if (p / _COMPLETE).is_file()]
    if not complete:
        return None
    newest = max(complete, key=lambda p: int(p.name.rpartition("-")[2]))
    return newest, read_json(newest / _COMPLETE)


def remove_others(work: Path, keep: Path) -> None:
    """Delete every checkpoint except `keep`."""
    for folder in work.glob("checkpoint-*"):
        if folder != keep:
            shutil.rmtree(folder)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
