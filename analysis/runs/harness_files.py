"""Reads the files of lm-evaluation-harness's `--log_samples`: the items of each task, and the results beside them.

In the folder of a model, a call writes `results_DATE.json` and for each task `samples_TASK_DATE.jsonl`, with a line per
item and filter (`lm_eval/loggers/evaluation_tracker.py`, version 0.4).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d(\.\d+)?)\.jsonl")
_NO_METRICS = ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics")


class HarnessError(ValueError):
    """A folder does not have what is asked of it; the message says why."""


class Items(NamedTuple):
    """The items of a task with one metric, in the order of the file."""

    ids: list[str]
    hashes: list[str]
    gold: list[str]
    predicted: list[str]
    values: list[float]


class HarnessFiles:
    """Reads files, each once.

    Attributes:
        digests: SHA-256 of each file that was read, by its path.
        older: the files of samples that were not read because newer ones of the same task are beside them.
    """

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.older: set[Path] = set()
        self._items: dict[Path, dict[str, Items]] = {}

    def newest(self, folder: Path) -> dict[str, Path]:
        """Return the newest file of samples in a folder by task."""
        files: dict[str, Path] = {}
        found = sorted(_samples(folder), key=lambda match: match["date"])
        for match in found:
            files[match["task"]] = folder / match.string
        self.older |= {folder / match.string for match in found} - {*files.values()}
        return files

    def items(self, path: Path) -> dict[str, Items]:
        """Return the items of a file of samples by metric and filter, of the metrics that are 0 to 1 in each item.

        Raises:
            HarnessError: the file cannot be read, or an item comes twice.
        """
        if path not in self._items:
            found: dict[str, Items] = {}
            # `splitlines` would also split at U+2028 and the like, which texts may contain.
            for number, line in enumerate(self._text(path).split("\n"), 1):
                if line.strip():
                    _add(found, _json(line, f"{path.name} line {number}"), str(number))
            for key, items in found.items():
                if len(set(items.ids)) < len(items.ids):
                    raise HarnessError(f"{path.name} has an item twice for {key}")
            self._items[path] = {key: items for key, items in found.items() if not np.isnan(items.values).any()}
        return self._items[path]

    def summary(self, samples: Path) -> Mapping[str, Any]:
        """Return the content of the file of results that was written together with a file of samples; empty if none.

        Raises:
            HarnessError: it is no JSON object.
        """
        match = _SAMPLES.fullmatch(samples.name)
        date = match["date"] if match else ""
        path = next(iter(sorted(samples.parent.glob(f"*_{date}.json"))), None)
        return {} if path is None else _json(self._text(path), path.name)

    def _text(self, path: Path) -> str:
        try:
            content = path.read_bytes()
            self.digests[str(path)] = hashlib.sha256(content).hexdigest()
            return content.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise HarnessError(f"{path.name} cannot be read ({error})") from error


def model_folders(folder: Path) -> list[Path]:
    """Return the folders with samples: a folder itself, or else those in it."""
    if _samples(folder):
        return [folder]
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and _samples(path)]


def _samples(folder: Path) -> list[re.Match[str]]:
    return [match for path in folder.iterdir() if (match := _SAMPLES.fullmatch(path.name))]


def model_folder(folder: Path) -> Path:
    """Return the folder with a model's samples: a folder itself, or the only one in it.

    Raises:
        HarnessError: there is none, or several.
    """
    if not folder.is_dir():
        raise HarnessError("is no folder")
    found = model_folders(folder)
    if len(found) > 1:
        raise HarnessError(f"has results of several models, of which one line names one: {few(p.name for p in found)}")
    if not found:
        raise HarnessError("has no file samples_TASK_DATE.jsonl, which lm_eval writes with --log_samples")
    return found[0]


def _add(found: dict[str, Items], sample: Mapping[str, Any], number: str) -> None:
    """Add a line of a file of samples to the items by metric and filter; older versions name neither."""
    names = sample.get("metrics")
    if not isinstance(names, list):
        names = [name for name in sample if name not in _NO_METRICS and not name.endswith("_hash")]
    for name in names:
        items = found.setdefault(f"{name},{sample.get('filter', 'none')}", Items([], [], [], [], []))
        items.ids.append(str(sample.get("doc_id", number)))
        items.hashes.append(str(sample.get("doc_hash", "")))
        items.gold.append(str(sample.get("target", "")))
        items.predicted.append(_predicted(sample.get("filtered_resps")))
        items.values.append(_share(sample.get(str(name))))


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise HarnessError(f"{where} is no JSON object")
    return content


def _share(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else float("nan")


def _predicted(responses: Any) -> str:
    """Return the index of the choice with the highest log-likelihood, or the text that was generated."""
    if not isinstance(responses, list) or not responses:
        return ""
    if not all(isinstance(response, list) and response for response in responses):
        return str(responses[0])
    try:
        return str(int(np.argmax([float(response[0]) for response in responses])))
    except (TypeError, ValueError):
        return str(responses[0])


def few(names: Iterable[str], most: int = 5) -> str:
    """Join names in order; count those beyond the first `most`."""
    listed = sorted(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")
