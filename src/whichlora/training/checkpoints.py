"""What a training run needs on disk to go on after it was killed, written so that half a file is never read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from whichlora.variants import Variant

_WEIGHTS, _METHOD, _COMPLETE = "trainable.safetensors", "method.pt", "complete.json"


def save_state(model: Any, variant: Variant, folder: Path) -> None:
    """Write the trainable tensors, and what the variant keeps beside them, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(tensors, folder / _WEIGHTS)
    if variant.method_state is not None:
        torch.save(variant.method_state(model), folder / _METHOD)


def load_state(model: Any, variant: Variant, folder: Path) -> None:
    """Put back what `save_state` wrote into a model to which the same adapter has been attached."""
    stored = load_file(folder / _WEIGHTS)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if stored.keys() != parameters.keys():
        raise RuntimeError(f"{folder} holds another adapter than the one attached")
    with torch.no_grad():
        for name, tensor in stored.items():
            parameters[name].copy_(tensor)
    if variant.restore_method_state is not None:
        variant.restore_method_state(model, torch.load(folder / _METHOD, map_location="cpu", weights_only=True))


def complete(folder: Path, facts: dict[str, Any]) -> None:
    """Mark `folder` as whole, with facts of the moment."""
    write_json(folder / _COMPLETE, facts)


def last_complete(work: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest whole checkpoint under `work` and its facts, if there is one."""
    found = [p for p in work.glob("checkpoint-*") if (p / _COMPLETE).is_file()]
    if not found:
        return None
    newest = max(found, key=lambda p: int(p.name.rpartition("-")[2]))
    return newest, read_json(newest / _COMPLETE)


def remove_others(work: Path, keep: Path) -> None:
    """Delete every checkpoint but one."""
    for folder in work.glob("checkpoint-*"):
        if folder != keep:
            shutil.rmtree(folder)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that is either whole or not there."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result
