"""Compares alignment probes of several languages: a table with the chance level of each, and means of groups."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mlflow.entities import Run

from whichlora.data.language_names import GROUPS, language_name
from whichlora.data.logged_scores import interval_of
from whichlora.text_tables import SHARES, table

_HEAD = ("", "pairs", "chance", "P@1 raw", "95 % CI", "P@1 centred", "P@1 CSLS", "MRR CSLS")
_SHOWN = ("p1/{}/raw", "p1/{}/centred", "p1/{}/csls", "mrr/{}/csls")


def comparison(probes: Sequence[Run], *, width: int | None = None) -> str:
    """Return a table of finished alignment probes, one per language, of at most `width` cells.

    Languages of a group stand together, followed by the unweighted mean of the group.
    """
    layers = {probe.data.metrics["headline/layer"] for probe in probes if "headline/layer" in probe.data.metrics}
    where = f"after block {layers.pop():g} (counted from 0)" if len(layers) == 1 else "at the headline layer"
    rows: list[Sequence[object]] = [_HEAD]
    rest = list(probes)
    for name, codes in GROUPS.items():
        own = [probe for probe in rest if probe.data.params["language"] in codes]
        rest = [probe for probe in rest if probe not in own]
        rows += [_row(probe) for probe in own]
        rows += [_mean(f"{name}, mean of {len(own)}", own)] if len(own) > 1 else []
    rows += [_row(probe) for probe in rest]
    rows += [_mean(f"all, mean of {len(probes)}", probes)] if rest and len(probes) > 1 else []
    head = f"Translations found {where}: from English / to English, the interval from English"
    note = "Scores of languages with different numbers of pairs, and so of chance, are not comparable."
    return f"{head}\n{table(rows, width=width, optional=('MRR CSLS', '95 % CI'))}\n{note}"


def _row(probe: Run) -> list[str]:
    metrics = probe.data.metrics
    ends = interval_of(metrics, "headline/p1/to/raw")
    raw, *others = _scores([probe])
    interval = "" if ends is None else SHARES.interval(*ends)
    return [
        language_name(probe.data.params["language"]),
        probe.data.params["items"],
        _chance([probe]),
        raw,
        interval,
        *others,
    ]


def _mean(name: str, probes: Sequence[Run]) -> list[str]:
    raw, *others = _scores(probes)
    return [name, "", _chance(probes), raw, "", *others]


def _chance(probes: Sequence[Run]) -> str:
    return f"{fmean(probe.data.metrics['chance/p1'] for probe in probes):.4f}"


def _scores(probes: Sequence[Run]) -> list[str]:
    """Return the means of `_SHOWN` in both directions; a dash where a probe of an earlier version lacks them."""
    texts = []
    for measure in _SHOWN:
        means = []
        for way in ("to", "from"):
            values = [probe.data.metrics.get(f"headline/{measure.format(way)}") for probe in probes]
            means.append("-" if None in values else SHARES.text(fmean(value for value in values if value is not None)))
        texts.append(" / ".join(means))
    return texts
