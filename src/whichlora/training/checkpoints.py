"""Reads and writes the checkpoints from which a killed run resumes, and the best epoch.

A checkpoint is complete once its files are on the disk and a record with their digests is written. The two newest are
kept, so that a run whose newest one is damaged resumes from the other. A checkpoint also records which epoch was the
best one, so that it determines the rest of the training alone.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from whichlora.errors import DamagedError, NonFiniteError
from whichlora.training.sealed import files_in, read_checked, read_record, write_record
from whichlora.training.verification import prove_finite, trainable_tensors
from whichlora.variants import Variant

_WEIGHTS, _METHOD, _COMPLETE, _BEST = "trainable.safetensors", "method.pt", "complete.json", "best.json"


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


def save_best(model: Any, variant: Variant, work: Path, *, step: int, score: float) -> None:
    """Save the trainable tensors as those of the best epoch, which ended after `step`, with its validation score."""
    folder = work / f"best-{step}"
    save_state(model, variant, folder)
    write_record(work / _BEST, {"step": step, "score": score, "folder": folder.name}, files=files_in(folder))


def read_best(work: Path) -> dict[str, Any] | None:
    """Return the step, score and folder of the best epoch so far; None before the first one."""
    return read_record(work / _BEST) if (work / _BEST).is_file() else None


def load_best(model: Any, variant: Variant, work: Path) -> dict[str, Any]:
    """Load the tensors of the best epoch and return its step, score and folder.

    Raises:
        DamagedError: A file of the best epoch is damaged.
    """
    best = read_checked(work / _BEST)
    load_state(model, variant, work / best["folder"])
    return best


def mark_complete(folder: Path, metadata: dict[str, Any]) -> None:
    """Mark the checkpoint in `folder` as complete, and store metadata and the record of the best epoch with it."""
    best = folder.parent / _BEST
    if best.is_file():
        shutil.copy(best, folder / _BEST)
    (folder / _COMPLETE).unlink(missing_ok=True)
    write_record(folder / _COMPLETE, metadata, files=files_in(folder))


def last_complete(work: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest complete checkpoint under `work` and its metadata, or None.

    Raises:
        DamagedError: The record of the checkpoint is damaged; `recover` removes such checkpoints.
    """
    complete = _complete(work)
    return (complete[0], read_record(complete[0] / _COMPLETE)) if complete else None


def recover(work: Path) -> Path | None:
    """Return the newest undamaged checkpoint under `work`, or None; remove damaged ones, with a warning.

    The best epoch becomes the one that the checkpoint records; later ones are found again by the training.
    """
    problems, found = [], None
    for folder in _complete(work):
        try:
            read_checked(folder / _COMPLETE)
            prove_finite(load_file(folder / _WEIGHTS).items(), f"in {folder.name}")
            _restore_best(work, folder)
        except (DamagedError, NonFiniteError) as error:
            problems.append(str(error))
            _remove(folder)
        else:
            found = folder
            break
    if problems:
        rest = "training starts over" if found is None else f"training resumes from {found.name}"
        print(f"warning: {'; '.join(problems)}: {rest}.", file=sys.stderr)
    return found


def keep_newest(work: Path) -> None:
    """Delete every checkpoint except the newest complete one, before another is written."""
    newest = _complete(work)[:1]
    for folder in work.glob("checkpoint-*"):
        if folder not in newest:
            _remove(folder)


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; if this process is killed meanwhile, what is left does not count as complete."""
    (checkpoint / _COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _complete(work: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    complete = [path for path in work.glob("checkpoint-*") if (path / _COMPLETE).is_file()]
    return sorted(complete, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _restore_best(work: Path, checkpoint: Path) -> None:
    """Make the best epoch that a checkpoint records the current one.

    Raises:
        DamagedError: A file of that epoch is damaged.
    """
    (work / _BEST).unlink(missing_ok=True)
    if (checkpoint / _BEST).is_file():
        shutil.copy(checkpoint / _BEST, work / _BEST)
        read_checked(work / _BEST)
