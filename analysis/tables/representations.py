"""Tabulates alignment and weight probes: a table for each group of comparable texts, and one for each setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.decimals import fixed
from analysis.records import Record
from analysis.runs.methods import method_order
from analysis.runs.probe_runs import mean_by_layer
from analysis.runs.representation_probes import (
    ALIGNMENT_MEASURES,
    CKA_MEASURES,
    MRR,
    OVERLAP_MEASURES,
    P1,
    SIZE_MEASURES,
    Group,
    RepresentationProbes,
    cka_lines,
    comparable_groups,
)
from analysis.tables import aligned_languages
from analysis.tables.formats import Cell, Table, cell, number

COUNTS = "alignment and weight probes"
_SUMMARY = ["mean", "low", "high", "n"]


def make_tables(insides: RepresentationProbes) -> tuple[list[Table], list[Record]]:
    """Return the tables, and a record for each number in them and for each count of probes.

    Without any probe both are empty.
    """
    counts = {
        "used": len(insides.used),
        "failed": len(insides.failed),
        "unfinished": len(insides.unfinished),
        "done twice": len(insides.duplicates),
        "left out": len(insides.left_out),
    }
    records = [Record(outcome="", analysis=COUNTS, test=test, groups=(), n=n) for test, n in counts.items()]
    tables: list[Table] = []
    for group in comparable_groups(insides.alignment):
        for make_table in (_alignment_table, _similarity_table):
            table, table_records = make_table(group)
            tables += [table] if table.rows else []
            records += table_records
    language_tables, language_records = aligned_languages.language_tables(insides.alignment)
    tables, records = [*tables, *language_tables], [*records, *language_records]
    settings = sorted(set(insides.weights["setting"]))
    for position, setting in enumerate(settings, 1):
        name = f"weights-{position}" if len(settings) > 1 else "weights"
        table, table_records = _weight_table(insides.weights[insides.weights["setting"] == setting], setting, name)
        tables.append(table)
        records += table_records
    return tables, records if any(counts.values()) else []


def _alignment_table(group: Group) -> tuple[Table, list[Record]]:
    """Tabulate cosine gap, P@1 and MRR of translations after the best block and the last."""
    body: list[tuple[Cell, ...]] = []
    records: list[Record] = []
    for line, rows in group.lines():
        means = {measure: _by_block(rows, measure) for measure in ALIGNMENT_MEASURES}
        for what, block in _blocks(means[ALIGNMENT_MEASURES[0]]):
            at = {
                measure: _record("alignment", measure, line, block, means[measure], group)
                for measure in ALIGNMENT_MEASURES
            }
            records += at.values()
            gaps = [cell(fixed(at[measure].effect or 0.0, 3)) for measure in ALIGNMENT_MEASURES[:2]]
            both = [
                cell(*(fixed(at[f"{name}/{way}/centred"].effect or 0.0, 3) for way in ("to", "from")))
                for name in (P1, MRR)
            ]
            probes = cell(str(rows["probe_id"].nunique()))
            body.append((cell(line), cell(what), cell(str(block)), *gaps, *both, probes))
    chances = []
    for name, title in ((P1, "P@1"), (MRR, "MRR")):
        chance = float(group.rows[f"chance_{name}"].mean())
        chances.append(f"{title} {fixed(chance, 3)}")
        where = (name, group.about)
        records.append(Record(outcome="", analysis="alignment", test="chance", groups=where, effect=chance))
    table = Table(
        name=f"translations{group.suffix}",
        title=f"Translations in {group.language} by layer.",
        caption=(
            f"{group.about} The gap is the mean cosine of translations minus that of random pairs, with and without "
            "subtracting the mean of each language; P@1 is the share of texts whose nearest neighbour is "
            "their translation, MRR "
            "the mean reciprocal rank, from "
            f"{group.source} / to {group.source}, centred. Chance: {', '.join(chances)}. Shown are the block with the "
            "highest centred gap and the last one; the CSV file has every layer, -1 being what enters the first block."
        ),
        header=("of", "where", "after block", "gap, centred", "gap, raw", "P@1", "MRR", "probes"),
        rows=tuple(body),
        labels=2,
        numbers=_numbers(group.lines()),
    )
    return table, records


def _similarity_table(group: Group) -> tuple[Table, list[Record]]:
    """Tabulate CKA of the same texts' states in two models, for probes that have a second model."""
    body, records = [], []
    pairs = cka_lines(group)
    for line, rows in pairs:
        cells = []
        for measure in CKA_MEASURES:
            mean = _by_block(rows, measure)
            for block in (int(str(mean["mean"].idxmin())), int(mean.index.max())):
                record = _record("similarity", measure, line, block, mean, group)
                records.append(record)
                cells.append(cell(f"{fixed(record.effect or 0.0, 3)} ({block})"))
        body.append((cell(line), *cells, cell(str(rows["probe_id"].nunique()))))
    table = Table(
        name=f"cka{group.suffix}",
        title=f"States of two models, {group.source} and {group.language}.",
        caption=(
            f"{group.about} Linear CKA of the same texts' states in both, 1 if they are identical up to rotation and "
            "scale: the lowest of all layers and the last, with the block in brackets."
        ),
        header=(
            *("of", f"{group.source}, lowest", f"{group.source}, last"),
            *(f"{group.language}, lowest", f"{group.language}, last", "probes"),
        ),
        rows=tuple(body),
        labels=1,
        numbers=_numbers([(line, rows[rows["measure"].isin(CKA_MEASURES)]) for line, rows in pairs]),
    )
    return table, records


def _weight_table(weights: pd.DataFrame, setting: str, name: str) -> tuple[Table, list[Record]]:
    """Tabulate norms, stable rank and rank of the weight updates, and their overlap with another run's."""
    body, records = [], []
    overlaps = [measure for measure in OVERLAP_MEASURES if (weights["measure"] == measure).any()]
    order = method_order(weights)
    parts = sorted(
        weights.groupby(["method", "against"]), key=lambda part: (order.index(str(part[0][0])), str(part[0][1]))
    )
    for (method, against), rows in parts:
        line = [cell(str(method)), *([cell(str(against) or "–")] if overlaps else [])]
        for measure in (*SIZE_MEASURES, *overlaps):
            means = _over_modules(rows, measure)
            if means.empty:
                line.append(cell("–"))
                continue
            record = Record(
                outcome="",
                analysis="weights",
                test=measure,
                groups=(str(method), setting, *([str(against)] if against else [])),
                effect=float(means.mean()),
                statistic=float(means.std()),
                n=len(means),
                note="mean over n probes of the mean over modules, the statistic is the standard deviation",
            )
            records.append(record)
            text = number(record.effect) + ("" if record.statistic is None else f" ± {number(record.statistic)}")
            if measure in OVERLAP_MEASURES:
                chance = float(_over_modules(rows, OVERLAP_MEASURES[measure]).mean())
                records.append(replace(record, test=OVERLAP_MEASURES[measure], effect=chance, statistic=None))
                text += f" ({number(chance)})"
            line.append(cell(text))
        body.append((*line, cell(str(rows["probe_id"].nunique()))))
    caption = (
        f"{setting}. Of the update of each adapted layer: Frobenius norm over that of the weight, largest singular "
        "value, squared Frobenius over squared spectral norm, and singular values above numerical zero; mean over "
        "layers and modules, then over probes (± standard deviation over probes). The CSV file has every block."
    )
    if overlaps:
        caption += " Overlap is that of the leading directions, out and in, with another run's, 0 to 1; in brackets "
        caption += "that of random directions."
    return Table(
        name=name,
        title="Weight updates of training.",
        caption=caption,
        header=(
            *("method", *(["against"] if overlaps else []), "relative norm", "spectral norm", "stable rank", "rank"),
            *(measure.replace("_", ", ") for measure in overlaps),
            "probes",
        ),
        rows=tuple(body),
        labels=2 if overlaps else 1,
        numbers=_numbers([(f"{method}{f' and {other}' if other else ''}", rows) for (method, other), rows in parts]),
    ), records


def _over_modules(rows: pd.DataFrame, measure: str) -> pd.Series[float]:
    """Return the mean over modules of each probe; the value of a layer is already a mean over its `n` modules."""
    known = rows[(rows["measure"] == measure) & rows["value"].notna()]
    weighted = known.assign(total=known["value"] * known["n"]).groupby("probe_id")[["total", "n"]].sum()
    return weighted["total"] / weighted["n"]


def _by_block(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return a measure's mean and interval after each block."""
    return mean_by_layer(rows[(rows["measure"] == measure) & (rows["layer"] >= 0)])


def _blocks(gap: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the block with the highest gap and the last one, each with its label."""
    highest, last = int(str(gap["mean"].idxmax())), int(gap.index.max())
    return [("highest and last", last)] if highest == last else [("highest", highest), ("last", last)]


def _record(analysis: str, measure: str, line: str, block: int, means: pd.DataFrame, group: Group) -> Record:
    mean, low, high, n = means.loc[block, _SUMMARY].to_numpy(dtype=float)
    note = f"after block {block}, mean over n probes, interval over them or, of one, over its items; {group.about}"
    return Record(
        outcome="",
        analysis=analysis,
        test=measure,
        groups=(line, f"block {block}"),
        effect=float(mean),
        interval=(float(low), float(high)),
        n=int(n),
        note=note,
    )


def _numbers(parts: Sequence[tuple[str, pd.DataFrame]]) -> pd.DataFrame:
    """Return every layer and measure of each line, for the CSV file."""
    frames = [
        mean_by_layer(rows).reset_index().assign(of=line, measure=measure)
        for line, part in parts
        for measure, rows in part.groupby("measure", sort=True)
    ]
    columns = ["of", "measure", "layer", *_SUMMARY]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
