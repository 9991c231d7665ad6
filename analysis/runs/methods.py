"""Assigns runs to settings and names the methods in them.

A setting is a task, a model and the other conditions that all methods share. A method is a variant and an arm; if a
cell of the design holds several runs of both, the hyperparameters in which they differ become part of the name.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from analysis.columns import CONDITIONS, SETTINGS
from whichlora.variants import CATALOGUE

_CELL = ["setting", "language", "tl_ratio", "seed"]
_OTHER_CONDITIONS = ", other conditions not given"
_SHOWN = {"source_language": "source", "headline": "metric"}
"""Names of conditions in the names of settings, if not their own."""
_OPTIONS = "variant_options"
UNTRAINED = "none"
"""The variant that stands for the untrained base model: shown in tables, excluded from comparisons."""


def name_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `setting` and shorten `model`; copies of a model under different paths are one model, by digest.

    A run that names no digest is of the model of that name. Runs that do not give a condition on which others differ
    are a setting of their own.
    """
    short = frame["model"].map(lambda name: PurePosixPath(name.rstrip("/")).name or name)
    identity = _model_identity(frame, short)
    first = short.groupby(identity).transform("min")
    ambiguous = identity.groupby(first).transform("nunique") > 1
    frame = frame.assign(model=first.mask(ambiguous, first + " " + identity.str[:6]))
    texts = pd.DataFrame({key: frame[key].map(lambda v, k=key: format_value(k, v)) for key in CONDITIONS})
    label = frame["task"] + ", " + frame["model"]
    incomplete = pd.Series(False, index=frame.index)
    for key in CONDITIONS:
        if key not in ("task", "model"):
            differs = texts[key].groupby(label).transform("nunique") > 1
            given = texts[key] != ""
            incomplete |= differs & ~given
            label = label.mask(differs & given, label + f", {_SHOWN.get(key, key)} " + texts[key])
    return frame.assign(setting=label.mask(incomplete, label + _OTHER_CONDITIONS))


def _model_identity(frame: pd.DataFrame, short: pd.Series[str]) -> pd.Series[str]:
    """Return what identifies each run's model: its digest, else that of the only one with the same name, else the name.

    A name without a folder or an owner stands for any model with that last part.
    """
    if "model_digest" not in frame:
        return frame["model"]
    identity = frame["model_digest"].where(frame["model_digest"] != "")
    for names, bare in ((frame["model"], short == short), (short, frame["model"] == short)):
        by_name = identity.groupby(names)
        only = by_name.first().where(by_name.nunique() == 1)
        identity = identity.fillna(names.map(only).where(bare))
    return identity.fillna(frame["model"])


def name_methods(
    frame: pd.DataFrame, fields: Sequence[str] = SETTINGS
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[str, ...]]:
    """Add `method`, and merge identical methods.

    Args:
        fields: the columns in which runs of one variant and arm may differ.

    Returns:
        the frame; a sentence for each merge; notes on the meaning of the names.
    """
    texts = _texts(frame, fields)
    frame = frame.assign(_detail=_details(frame, texts))
    identity = pd.Series(list(zip(frame["variant"], frame["arm"], frame["_detail"], strict=True)), index=frame.index)
    merged, merges = _identical(frame, identity)
    identity = identity.map(lambda key: merged.get(key, key))
    labels = _labels(sorted(set(identity)))
    # A merged method is named by its variant alone, because its arms are identical.
    frame = frame.assign(method=identity.map(labels))
    sentences = tuple(
        f"{_arms(keys)} have the same resolved values and the same adapters in all {n} cells that they share: "
        f"they are one method, {labels[merged[keys[0]]]}, and are counted once."
        for keys, n in merges
    )
    frame = frame[~(identity.isin(set(merged.values())) & frame.duplicated(["method", *_CELL, "adapter"]))]
    notes = [*_mixed_value_notes(frame, texts)]
    if any(label.startswith("DoRA*") for label in labels.values()):
        notes.insert(0, "DoRA* is the variant dora with the values of the arm matched, as in the paper.")
    return frame.drop(columns="_detail"), sentences, tuple(notes)


def format_value(key: str, value: Any) -> str:
    """Return a spec field's value as shown in tables and names; "" if it has none."""
    if value is None or value != value or value in ("", "None"):
        return ""
    if key == "layers" and re.fullmatch(r"\d+(,\d+)*", str(value)):
        return format_ranges(map(int, str(value).split(",")))
    if key == _OPTIONS and (options := _settings(value)) is not None:
        return ", ".join(f"{name} {options[name]}" for name in sorted(options))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _texts(frame: pd.DataFrame, fields: Sequence[str]) -> pd.DataFrame:
    """Return the fields' values as texts, with a column for each of the variants' own settings.

    So a method is named by the settings in which it differs, and not by all that its variant has.
    """
    texts = pd.DataFrame({key: frame[key].map(lambda v, k=key: format_value(k, v)) for key in fields})
    if _OPTIONS in texts:
        options = frame[_OPTIONS].map(_settings)
        texts[_OPTIONS] = texts[_OPTIONS].where(options.isna(), "")
        options = options.map(lambda settings: settings or {})
        names = sorted({name for settings in options for name in settings})
        texts = texts.assign(**{name: options.map(lambda v, n=name: format_value(n, v.get(n))) for name in names})
    return texts


def _details(frame: pd.DataFrame, texts: pd.DataFrame) -> pd.Series[str]:
    """Return for each run its values of the fields that differ within some cell of its variant and arm."""
    details = pd.Series("", index=frame.index)
    for _, rows in frame.groupby(["variant", "arm"], sort=True):
        values = texts.loc[rows.index]
        counts = values.groupby([rows[key] for key in _CELL]).nunique()
        for field in [field for field in map(str, texts) if (counts[field] > 1).any()]:
            part = field.replace("_", " ") + " " + values[field].replace("", "none")
            details.loc[rows.index] = details.loc[rows.index].where(details == "", details + ", ") + part
    return details


def _identical(frame: pd.DataFrame, identity: pd.Series[Any]) -> tuple[dict[Any, Any], list[tuple[list[Any], int]]]:
    """Find methods of one variant whose adapters are identical in all cells that both have.

    Returns:
        the merged method of each; and for each merge its members and the number of shared cells.
    """
    cells: dict[Any, dict[Any, str]] = {}
    for key, *cell, adapter in zip(identity, *(frame[column] for column in (*_CELL, "adapter")), strict=True):
        cells.setdefault(key, {})[tuple(cell)] = adapter
    merged: dict[Any, Any] = {}
    merges = []
    for variant, group in itertools.groupby(sorted(cells), key=lambda key: key[0]):
        remaining = list(group)
        while remaining:
            first = remaining.pop(0)
            identical = [other for other in remaining if _agree(cells[first], cells[other])]
            if identical:
                shared = min(len(cells[first].keys() & cells[other].keys()) for other in identical)
                target = (variant, "", first[2] if all(k[2] == first[2] for k in identical) else "")
                merged |= dict.fromkeys((first, *identical), target)
                merges.append(([first, *identical], shared))
                remaining = [key for key in remaining if key not in identical]
    return merged, merges


def _agree(one: dict[Any, str], other: dict[Any, str]) -> bool:
    shared = one.keys() & other.keys()
    return bool(shared) and all(one[cell] == other[cell] for cell in shared)


def _labels(keys: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    labels = {}
    for variant, arm, detail in keys:
        title = CATALOGUE[variant].title if variant in CATALOGUE else variant
        arms = {other for name, other, _ in keys if name == variant}
        if (variant, arm) == ("dora", "matched"):
            title = "DoRA*"
        elif arm and len(arms) > 1 and (variant, arm) != ("dora", "recommended"):
            title = f"{title} ({arm})"
        labels[variant, arm, detail] = f"{title}, {detail}" if detail else title
    return labels


def _arms(keys: list[tuple[str, str, str]]) -> str:
    names = [" ".join(part for part in (variant, arm, detail) if part) for variant, arm, detail in keys]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _mixed_value_notes(frame: pd.DataFrame, texts: pd.DataFrame) -> list[str]:
    """Return a note for each method whose values differ between the cells of a setting, as those of a tuned arm can."""
    sentences = []
    for (setting, method), rows in frame.groupby(["setting", "method"], sort=True):
        for field in map(str, texts):
            values = sorted(set(texts.loc[rows.index, field]))
            if len(values) > 1 and field != "select_on":  # select_on depends on the mixture
                sentences.append(
                    f"{method} ({setting}) has several values of {field.replace('_', ' ')} between cells: "
                    f"{', '.join(value or 'none' for value in values)}."
                )
    return sentences


def _settings(value: Any) -> dict[str, Any] | None:
    """Return a variant's own settings from their JSON; None for another text, as a file of results may have."""
    try:
        settings = json.loads(str(value))
    except ValueError:
        return None
    return settings if isinstance(settings, dict) else None


def format_ranges(numbers: Iterable[int]) -> str:
    """Return 22, 23, 24, 30 as "22-24,30"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def method_order(rows: pd.DataFrame) -> list[str]:
    """Return the methods in the order of the catalogue, those of other variants next, and the base model last."""
    known = [variant for variant in CATALOGUE if variant != UNTRAINED]
    first = rows.drop_duplicates("method")
    keys = {
        method: (variant == UNTRAINED, known.index(variant) if variant in known else len(known), method)
        for method, variant in zip(first["method"], first["variant"], strict=True)
    }
    return sorted(keys, key=lambda method: keys[method])
