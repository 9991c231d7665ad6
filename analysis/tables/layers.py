"""Tabulates the language probes by layer, and summarises each panel of correlations in a sentence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pandas as pd

from analysis.decimals import fixed
from analysis.measures.layer_shares import (
    ANALYSIS,
    CRITICAL,
    KAPPA,
    PEARSON,
    SHARES_ANALYSIS,
    analysis_name,
    parse_column,
)
from analysis.naming import Names
from analysis.records import Record, find, is_significant
from analysis.runs.language_probes import LEVELS, SHARES
from analysis.runs.methods import format_ranges
from analysis.tables.formats import BEST, Part, Table, cell


def make_tables(records: Sequence[Record], shares: pd.DataFrame, settings: Sequence[str], names: Names) -> list[Table]:
    """Return the tables of detectors, shares and correlations for each setting that has probes."""
    tables = []
    for number, setting in enumerate(settings, 1):
        part = shares[shares["setting"] == setting]
        if part.empty:
            continue
        suffix, where = (f"-{number}", f"{setting}. ") if len(settings) > 1 else ("", "")
        share_records = find(records, analysis=analysis_name(SHARES_ANALYSIS, setting, settings))
        tables.append(_detector_table(share_records, part, f"detectors{suffix}", where, names))
        tables.append(_share_table(share_records, part, f"layer-shares{suffix}", where, names))
        for level in LEVELS:
            correlations = find(records, analysis=analysis_name(ANALYSIS, setting, settings), test=PEARSON)
            correlations = [
                r for r in correlations if r.effect is not None and r.groups[1].startswith(f"probe/{level}/")
            ]
            if correlations:
                tables.append(
                    _correlation_table(correlations, level, f"layer-correlation-{level}{suffix}", where, names)
                )
    return tables


def _detector_table(records: Sequence[Record], shares: pd.DataFrame, name: str, where: str, names: Names) -> Table:
    """Tabulate the language detector's ceiling on the true input, and its agreement with a second detector."""
    by_key = {(r.test, *r.groups): r for r in records if r.test in ("ceiling", KAPPA)}
    body = []
    for language, level in itertools.product(sorted(set(shares["language"])), LEVELS):
        ceilings = [by_key[("ceiling", language, level, share)] for share in SHARES]
        kappa = by_key.get((KAPPA, language, level))
        agreement = "not measured" if kappa is None else f"{_r(kappa.effect)}{_range(kappa)}"
        sizes = "–" if kappa is None else kappa.note.removeprefix("on ").partition(" of a probe")[0]
        ceiling_cells = (cell(f"{_percent(r.effect)}{_range(r, 100)}") for r in ceilings)
        body.append((cell(language), cell(level), *ceiling_cells, cell(agreement), cell(sizes)))
    rows = [(*r.groups, r.test, r.effect, *(r.interval or (None, None)), r.n) for r in by_key.values()]
    numbers = [(*row[:2], "" if len(row) < 8 else row[2], *row[-5:]) for row in rows]
    return Table(
        name=name,
        title="Language detector: ceiling and agreement.",
        caption=(
            f"{where}The ceiling is the share of {names.source}, and of {names.target}, that it finds in the true "
            "input: percent, with 95 % CI over items. Agreement of two detectors, CLD3 and Lingua, on a "
            "sample of the decoded "
            "states: Cohen's kappa, mean over probes (lowest to highest); 0 is chance, 1 perfect agreement."
        ),
        header=(
            "language",
            "by",
            f"ceiling, {names.source}",
            f"ceiling, {names.short('tl')}",
            "kappa",
            "on, in each probe",
        ),
        rows=tuple(body),
        labels=2,
        numbers=pd.DataFrame(numbers, columns=["language", "by", "share", "what", "value", "low", "high", "probes"]),
    )


def _range(record: Record, scale: float = 1.0) -> str:
    """Return the interval of a record in brackets; empty if it has none or its width is 0."""
    ends = record.interval
    if ends is None or ends[0] == ends[1]:
        return ""
    low, high = (f"{scale * end:.1f}" if scale > 1 else _r(end) for end in ends)
    return f" ({low} to {high})"


def _share_table(records: Sequence[Record], shares: pd.DataFrame, name: str, where: str, names: Names) -> Table:
    """Tabulate the shares of English and the target language: ceiling, highest and last layer."""
    by_key = {(r.test, *r.groups): r for r in records}
    curves = dict.fromkeys((r.groups[0], r.groups[1], r.groups[3]) for r in records if len(r.groups) == 4)
    body = []
    for language, level, of in curves:
        both = {share: (language, level, share, of) for share in SHARES}
        last = [by_key.get(("last", *key)) for key in both.values()]
        high = [by_key.get(("highest", *key)) for key in both.values()]
        top = [by_key.get(("ceiling", *key[:3])) for key in both.values()]
        blocks = cell(*("–" if r is None else r.note.partition("block ")[2].partition(";")[0] for r in high))
        values = [cell(*("–" if r is None else _percent(r.effect) for r in shown)) for shown in (top, high, last)]
        body.append((cell(language), cell(level), cell(of), values[0], values[1], blocks, values[2]))
    grouped = shares.groupby(["setting", "language", "level", "method", "tl_ratio", "share", "layer"], dropna=False)
    numbers = grouped["value"].agg(["mean", "std", "count"]).reset_index().rename(columns={"std": "sd", "count": "n"})
    caption = f"{where}Percent, {names.source} / {names.target.removeprefix('the ')}, mean over probes. "
    caption += "The ceiling is the share in the true input. The CSV file has every layer."
    header = ("language", "by", "of", "ceiling", "highest", "after block", "after the last")
    return Table(
        name=name, title="Shares.", caption=caption, header=header, rows=tuple(body), labels=3, numbers=numbers
    )


def _correlation_table(records: Sequence[Record], level: str, name: str, where: str, names: Names) -> Table:
    """Tabulate Pearson's r by layer, a column for each panel."""
    by_key = {(r.groups[0], *parse_column(r.groups[1])): r for r in records}
    panels = list(dict.fromkeys(r.groups[0] for r in records))
    layers = sorted({layer for _, _, layer in by_key})
    body = []
    for layer in layers:
        parts = []
        for panel in panels:
            both = [by_key.get((panel, share, layer)) for share in SHARES]
            parts.append(tuple(Part("–") if r is None else Part(_r(r.effect), BEST * is_significant(r)) for r in both))
        body.append((cell(str(layer)), *parts))
    numbers = [
        (*parse_column(r.groups[1]), r.groups[0], r.effect, *(r.interval or (None, None)), r.p, r.p_adjusted, r.n)
        for r in records
    ]
    columns = ["share", "layer", "panel", "r", "low", "high", "p", "p_adjusted", "n"]
    caption = (
        f"{where}Pearson's r of the share by {level} with {names.score} on {names.target}, {names.source} / "
        f"{names.short('tl')} share; bold "
    )
    caption += "where p is below .05 after adjustment for all tests of its column."
    return Table(
        name=name,
        title=f"Correlation by layer, by {level}.",
        caption=caption,
        header=("block", *panels),
        rows=tuple(body),
        labels=1,
        numbers=pd.DataFrame(numbers, columns=columns),
    )


def sentences(records: Sequence[Record], names: Names) -> list[str]:
    """Return a sentence for each panel of correlations: the layers with a significant correlation."""
    texts = []
    for critical in find(records, test=CRITICAL):
        panel, level = critical.groups
        significant = [
            r
            for r in find(records, analysis=critical.analysis, test=PEARSON)
            if r.groups[0] == panel and r.groups[1].startswith(f"probe/{level}/") and is_significant(r)
        ]
        setting = critical.analysis.removeprefix(ANALYSIS).removeprefix(" in ")
        title = f"{panel}{f' ({setting})' * bool(setting)}, by {level}"
        parts = [part for share in SHARES for sign in (1, -1) if (part := _blocks(significant, share, sign, names))]
        text = f"{names.score} {' and '.join(parts)}"
        text = text if parts else f"no significant correlation of a layer's share with {names.score}"
        texts.append(f"{title}: {text} (n = {critical.n} runs, critical |r| {_r(critical.effect)}).")
    return texts


def _blocks(records: Sequence[Record], share: str, sign: int, names: Names) -> str:
    """Name the blocks whose share correlates with F1 in one direction.

    For example "rises with the English share after blocks 22-27"; empty if there are none.
    """
    by_layer = {parse_column(r.groups[1])[1]: r.effect for r in records if parse_column(r.groups[1])[0] == share}
    layers = sorted(layer for layer, r in by_layer.items() if r is not None and r * sign > 0)
    if not layers:
        return ""
    what = f"{'rises' if sign > 0 else 'falls'} with the {names.short(share)} share after block"
    coefficients = sorted(by_layer[layer] or 0.0 for layer in layers)
    ends = dict.fromkeys((_r(coefficients[0]), _r(coefficients[-1])))
    return f"{what}{'s' * (len(layers) > 1)} {format_ranges(layers).replace(',', ', ')} (r = {' to '.join(ends)})"


def _percent(value: float | None) -> str:
    return "–" if value is None else fixed(100 * value, 1)


def _r(value: float | None) -> str:
    """Format a correlation without the leading zero."""
    return "–" if value is None else fixed(value, 2).replace("0.", ".", 1)
