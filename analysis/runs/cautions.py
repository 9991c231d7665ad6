"""Cautions about the runs themselves: repetitions that disagree, mixed spec versions, and seeds that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.decimals import fixed
from analysis.runs.methods import UNTRAINED, format_ranges

_MOST = 3
"""Number of examples in a sentence."""


def cautions(finished: pd.DataFrame, used: pd.DataFrame, scores: Sequence[str]) -> tuple[str, ...]:
    """Return a sentence for each reason to doubt that the runs can be compared.

    Args:
        finished: all finished runs, repetitions included, with fingerprint and name.
        used: the runs that are analysed, with setting and method.
        scores: the columns of test scores.
    """
    trained = used[used["variant"] != UNTRAINED]
    return (
        *_repetitions(finished, [score for score in scores if score in finished]),
        *_english_of_one_adapter(used),
        *_spec_versions(used),
        *_seeds(trained),
    )


def _repetitions(finished: pd.DataFrame, scores: Sequence[str]) -> list[str]:
    """Tell of runs of one fingerprint whose scores differ."""
    examples = []
    for _, runs in finished.groupby("fingerprint", sort=True):
        differing = [score for score in scores if runs[score].nunique() > 1]
        if differing:
            texts = (
                f"{score} {' and '.join(f'{v:.4f}' for v in sorted(set(runs[score].dropna())))}" for score in differing
            )
            examples.append(f"{runs['name'].iloc[-1]}, {', '.join(texts)}")
    if not examples:
        return []
    what = "1 run was repeated" if len(examples) == 1 else f"{len(examples)} runs were repeated"
    return [
        f"{what} with the same fingerprint and another score, so the results are not exactly reproducible; the last to "
        f"end is used: {_few(examples)}."
    ]


def _english_of_one_adapter(used: pd.DataFrame) -> list[str]:
    """Tell of adapters that have several English scores on the same test items."""
    if "test/en/f1" not in used or "test_en_digest" not in used:
        return []
    known = used[used["test_en_digest"] != ""]
    values = known.groupby(["adapter", "test_en_digest"], sort=True)["test/en/f1"].agg(
        lambda v: sorted(set(v.dropna()))
    )
    examples = [" and ".join(fixed(100 * v, 2) for v in several) for several in values if len(several) > 1]
    if not examples:
        return []
    what = "1 adapter has" if len(examples) == 1 else f"{len(examples)} adapters have"
    return [f"{what} several English F1 scores (points) on the same test items: {_few(examples)}."]


def _spec_versions(used: pd.DataFrame) -> list[str]:
    if "spec_version" not in used or used["spec_version"].nunique() < 2:
        return []
    versions = ", ".join(sorted(set(used["spec_version"].dropna().astype(str))))
    return [f"The runs have several spec versions ({versions}): the same options may have given other numbers."]


def _seeds(trained: pd.DataFrame) -> list[str]:
    """Tell where settings, or methods or blocks of a setting, have different seeds."""
    found = _differing("Settings", "", trained.groupby("setting", sort=True)["seed"].agg(set).to_dict())
    for setting, runs in trained.groupby("setting", sort=True):
        where = f" in {setting}" if trained["setting"].nunique() > 1 else ""
        found += _differing("Methods", where, runs.groupby("method", sort=True)["seed"].agg(set).to_dict())
        block = runs["language"].astype(str) + " " + runs["tl_ratio"].map(lambda ratio: f"{100 * ratio:g}%")
        found += _differing("Blocks", where, runs.groupby(block, sort=True)["seed"].agg(set).to_dict())
    return found


def _differing(what: str, where: str, seeds: Mapping[object, set[int]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name, own in seeds.items():
        groups.setdefault(format_ranges(sorted(own)), []).append(str(name))
    if len(groups) < 2:
        return []
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    texts = [f"seeds {numbers}: {_few(names, ', ')}" for numbers, names in largest]
    return [f"{what}{where} have different seeds, which are compared only where they are shared ({_few(texts)})."]


def _few(texts: Sequence[str], by: str = "; ") -> str:
    rest = len(texts) - _MOST
    return by.join(texts[:_MOST]) + (f"{by}and {rest} more" if rest > 0 else "")
