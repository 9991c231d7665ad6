"""Analyses the share of each language by layer, and its correlation with F1 (Figure 4 of the paper)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.records import NotTestable, Record
from analysis.runs.language_probes import CEILING, LEVELS, SHARES, LanguageProbes, share_column
from analysis.runs.probe_runs import BASE
from analysis.stats.cells import rows
from analysis.stats.correlations import (
    DRAWS,
    CorrelationMap,
    correlation_map,
    rank_within_groups,
    strata,
)
from whichlora.config.layers import parse_layers
from whichlora.errors import OptionError

ANALYSIS, SHARES_ANALYSIS, COUNTS = "layer correlation", "layer shares", "probes"
KAPPA = "kappa of CLD3 and Lingua"
CRITICAL, PEARSON, SPEARMAN = "critical |r|", "Pearson", "Spearman"
ALL_LANGUAGES, WITHIN_RATIOS = "all languages", "ratios apart"
"""Panels over all runs, with shares and F1 centred within each language, or within each language and ratio."""
RUNS = "runs"


class Panel(NamedTuple):
    """Runs over which shares and F1 are correlated, and the groups within which both are centred."""

    name: str
    runs: pd.DataFrame
    groups: Sequence[Hashable]


def select_share_columns(
    table: pd.DataFrame, *, level: str, share: str, layers: str | int | None, depth: Sequence[float] | None
) -> list[str]:
    """Return the share columns of the layers selected by `layers` or `depth`.

    Args:
        layers: layers in the form of the option `layers`.
        depth: the lowest and the highest relative depth; that of block i of n is (i + 1) / n, 1 for the last block.

    Raises:
        NotTestable: there are no probes, no such layers, or models with different numbers of layers.
    """
    probed_layers = _layers(table, level, share)
    if not probed_layers:
        raise NotTestable(f"the runs have no language probe by {level}")
    by_model = [rows for _, rows in table.groupby("model", sort=True)] if "model" in table else [table]
    layer_counts = {1 + max(indices) for rows in by_model if (indices := _layers(rows, level, share))}
    if len(layer_counts) > 1:
        sizes = " and ".join(map(str, sorted(layer_counts)))
        raise NotTestable(f"these are models of {sizes} layers: select one of them with where")
    (n,) = layer_counts
    if depth is not None:
        selected = [layer for layer in range(n) if depth[0] <= (layer + 1) / n <= depth[1]]
    else:
        try:
            selected = list(parse_layers(str(layers), n) or ())
        except OptionError as error:
            raise NotTestable(f"layers {layers}: {error.allowed}") from None
    if not selected:
        raise NotTestable(f"no layer of the {n} lies at this depth")
    return [share_column(level, share, layer) for layer in selected]


def check_layer_arguments(*, share: object, layers: object, depth: object, level: object, **_: object) -> None:
    """Check the arguments of a claim about layers.

    Raises:
        ValueError: an argument is not allowed; the message names the allowed values.
    """
    if share not in SHARES:
        raise ValueError(f"share {share}; allowed are {', '.join(SHARES)}")
    if level not in LEVELS:
        raise ValueError(f"level {level}; allowed are {', '.join(LEVELS)}")
    if (layers is None) == (depth is None):
        raise ValueError("give either layers or depth")
    if layers is not None:
        try:
            parse_layers(str(layers))
        except OptionError as error:
            raise ValueError(f"layers {layers}; {error.allowed}") from None
    elif not (
        isinstance(depth, list)
        and len(depth) == 2
        and all(isinstance(end, (int, float)) for end in depth)
        and 0 <= depth[0] <= depth[1] <= 1
    ):
        raise ValueError(f"depth {depth}; must be two numbers from 0 to 1, the lower first")


def count_records(probes: LanguageProbes) -> list[Record]:
    """Return the number of probes by status."""
    counts = {
        "used": len(probes.used),
        "failed": len(probes.failed),
        "unfinished": len(probes.unfinished),
        "done twice": len(probes.duplicates),
        "left out": len(probes.left_out),
        **{f"of kind {kind}": n for kind, n in probes.others.items()},
    }
    return [Record(outcome="", analysis=COUNTS, test=test, groups=(), n=n) for test, n in counts.items()]


def correlation_records(table: pd.DataFrame) -> list[Record]:
    """Return the correlation of each layer's share with target-language F1, for each setting, level and panel.

    The tests of a panel at one level form a family, adjusted together; Pearson's and Spearman's are separate families.
    """
    records = []
    settings = sorted(set(table["setting"]))
    for setting in settings:
        runs, analysis = table[table["setting"] == setting], analysis_name(ANALYSIS, setting, settings)
        for level in LEVELS:
            names = [share_column(level, share, layer) for share in SHARES for layer in _layers(runs, level, share)]
            for panel in panels(runs, names):
                records += _panel_records(panel, names, analysis, level)
    return records


def panels(table: pd.DataFrame, names: Sequence[str]) -> list[Panel]:
    """Return a panel for each language, and panels over all runs; runs without any of the columns are excluded."""
    frame = rows(table, "tl")
    if frame.empty or not names:
        return []
    frame = frame[frame[list(names)].notna().any(axis=1)]
    result = [
        Panel(str(name), runs, strata(runs, ("language",))) for name, runs in frame.groupby("language", sort=True)
    ]
    if len(result) > 1:
        result.append(Panel(ALL_LANGUAGES, frame, strata(frame, ("language",))))
    if frame["tl_ratio"].nunique() > 1:
        result.append(Panel(WITHIN_RATIOS, frame, strata(frame, ("language", "tl_ratio"))))
    return result


def _panel_records(panel: Panel, names: Sequence[str], analysis: str, level: str) -> list[Record]:
    f1 = panel.runs["value"].to_numpy(dtype=float)
    shares = panel.runs[list(names)].to_numpy(dtype=float)
    try:
        pearson = correlation_map(shares, f1, panel.groups)
        ranks = (rank_within_groups(part, panel.groups) for part in (shares, f1[:, None]))
        spearman = correlation_map(next(ranks), next(ranks)[:, 0], panel.groups)
    except NotTestable as reason:
        note = f"no test: {reason} ({panel.name}, by {level})"
        return [Record(outcome="tl", analysis=analysis, test=PEARSON, groups=(panel.name, level), note=note)]
    records: list[Record] = []
    for test, correlations in ((PEARSON, pearson), (SPEARMAN, spearman)):
        note = f"n runs, {_centring(panel.name)}; p adjusted over {correlations.tests} tests, {DRAWS} permutations"
        results = zip(names, correlations.results, correlations.p_adjusted, strict=True)
        records += [
            Record(
                outcome="tl",
                analysis=analysis,
                test=test,
                groups=(panel.name, name),
                p_adjusted=float(p),
                correction="max-T",
                note=note,
                **result._asdict(),
            )
            for name, result, p in results
            if result is not None
        ]
    return [*records, _critical_record(panel, analysis, level, pearson)]


def _critical_record(panel: Panel, analysis: str, level: str, correlations: CorrelationMap) -> Record:
    untested = sum(result is None for result in correlations.results)
    note = f"critical |r| (Pearson) at .05, adjusted for {correlations.tests} tests"
    note += (
        f"; {untested} shares are not tested because they do not vary or are missing for some runs" if untested else ""
    )
    groups = (panel.name, level)
    n = len(panel.runs)
    return Record(
        outcome="tl", analysis=analysis, test=CRITICAL, groups=groups, effect=correlations.critical, n=n, note=note
    )


def share_records(shares: pd.DataFrame, settings: Sequence[str]) -> list[Record]:
    """Return the detector's ceiling and the highest and last mean share, for each language, level and share."""
    records = []
    shares = shares.assign(of=np.where(shares["method"] == BASE, BASE, RUNS))
    for setting in settings:
        analysis, curves = analysis_name(SHARES_ANALYSIS, setting, settings), shares[shares["setting"] == setting]
        for key, part in curves.groupby(["language", "level", "share"], sort=True):
            ceiling = part[part["layer"] == CEILING]
            groups = tuple(map(str, key))
            record = _share_record(
                analysis, "ceiling", groups, float(ceiling["value"].mean()), len(ceiling), "of the true input"
            )
            interval = (float(ceiling["low"].mean()), float(ceiling["high"].mean()))
            records.append(replace(record, interval=interval, note=f"{record.note}, interval over items; n probes"))
            for source, lines in part[part["layer"] != CEILING].groupby("of", sort=False):
                mean = lines.groupby("layer")["value"].mean().dropna()
                if mean.empty:
                    continue
                n = lines["probe_id"].nunique()
                for test, layer in (("highest", int(str(mean.idxmax()))), ("last", int(mean.index.max()))):
                    note = f"after block {layer}; mean over n probes"
                    records.append(_share_record(analysis, test, (*groups, str(source)), float(mean[layer]), n, note))
    return records


def agreement_records(agreement: pd.DataFrame, settings: Sequence[str]) -> list[Record]:
    """Return the mean kappa of the two detectors over the probes that measured it, for each language and level.

    The interval is the range over these probes.
    """
    records = []
    for (setting, *key), part in agreement.dropna(subset="kappa").groupby(["setting", "language", "level"], sort=True):
        kappa, sizes = part["kappa"], sorted(set(part["n"]))
        unit = "tokens" if key[1] == "token" else "texts"
        sizes_text = " to ".join(dict.fromkeys((f"{sizes[0]:,}", f"{sizes[-1]:,}")))
        note = f"on {sizes_text} {unit} of a probe, mean over n probes, from the lowest to the highest; chance is 0"
        records.append(
            Record(
                outcome="",
                analysis=analysis_name(SHARES_ANALYSIS, str(setting), settings),
                test=KAPPA,
                groups=tuple(map(str, key)),
                effect=float(kappa.mean()),
                interval=(float(kappa.min()), float(kappa.max())),
                n=len(kappa),
                note=note,
            )
        )
    return records


def _share_record(analysis: str, test: str, groups: tuple[str, ...], value: float, n: int, note: str) -> Record:
    return Record(outcome="", analysis=analysis, test=test, groups=groups, effect=value, n=n, note=f"share, {note}")


def analysis_name(analysis: str, setting: str, settings: Sequence[str]) -> str:
    """Return the name of an analysis in a setting; with several settings it includes the setting."""
    return f"{analysis} in {setting}" if len(settings) > 1 else analysis


def parse_column(name: str) -> tuple[str, int]:
    """Return the share and the layer of a share column."""
    _, _, share, layer = name.split("/")
    return share.removesuffix("_share"), int(layer)


def _layers(table: pd.DataFrame, level: str, share: str) -> list[int]:
    start = f"probe/{level}/{share}_share/"
    named = [str(name) for name in table.columns if str(name).startswith(start)]
    return sorted(int(name.removeprefix(start)) for name in named if table[name].notna().any())


def _centring(panel: str) -> str:
    return {
        ALL_LANGUAGES: "the mean of each language subtracted",
        WITHIN_RATIOS: "the mean of each language and ratio subtracted",
    }.get(panel, "of one language")
