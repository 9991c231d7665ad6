"""Finds what differs between the specs, versions and machines of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from mlflow.entities import Run

from whichlora.config.spec import RunSpec

DECISIVE, VERSIONS, CIRCUMSTANCES, OTHERS = "spec", "versions", "machine and launch", "other params"
_SPEC = {field.name for field in fields(RunSpec)} | {"spec_version"}
_TAGS = {
    "mlflow.user": "user",
    "mlflow.source.name": "source",
    "mlflow.source.git.commit": "git commit",
    "whichlora.place": "machine and work folder",
    "whichlora.resumed": "resumed",
}
_METRICS = ("train/micro_batch", "train/packed", "train/gradient_checkpointing")


@dataclass(frozen=True, kw_only=True)
class Differences:
    """The values that differ in one group, by name; a missing value is "-". `same` is the number of equal ones."""

    values: Mapping[str, tuple[str, str]]
    same: int


def differences(first: Run, second: Run) -> dict[str, Differences]:
    """Return what differs by group: spec, versions, machine and launch, other params."""
    texts: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        group: ({}, {}) for group in (DECISIVE, VERSIONS, CIRCUMSTANCES, OTHERS)
    }
    for side, run in enumerate((first, second)):
        for name, value in run.data.params.items():
            texts[_group(name)][side][name] = value
        for tag, name in _TAGS.items():
            if tag in run.data.tags:
                texts[CIRCUMSTANCES][side][name] = run.data.tags[tag]
        for name in _METRICS:
            if name in run.data.metrics:
                texts[CIRCUMSTANCES][side][name] = f"{run.data.metrics[name]:g}"
    return {group: _compared(*sides) for group, sides in texts.items()}


def _group(param: str) -> str:
    if param in _SPEC:
        return DECISIVE
    return VERSIONS if param.startswith("version/") or param == "model_revision" else OTHERS


def _compared(first: Mapping[str, str], second: Mapping[str, str]) -> Differences:
    names = dict.fromkeys((*first, *second))
    both = {name: (first.get(name, "-"), second.get(name, "-")) for name in names}
    different = {name: values for name, values in both.items() if values[0] != values[1]}
    return Differences(values=different, same=len(both) - len(different))
