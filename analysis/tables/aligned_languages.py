"""Tabulates alignment probes of several languages at the layer of XTREME-R, with means of related languages."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.decimals import fixed
from analysis.records import Record
from analysis.runs.probe_runs import mean_by_layer
from analysis.runs.representation_probes import Family, languages_by_texts
from analysis.tables.formats import Cell, Table, cell
from whichlora.data.language_names import GROUPS, language_name
from whichlora.data.word_pooling import retrieval_layer

ANALYSIS = "alignment by language"
_SPACES = ("raw", "centred", "csls")
_MEASURES = tuple(f"p1/{way}/{space}" for space in _SPACES for way in ("to", "from"))
_COLUMNS = ["of", "language", "measure", "layer", "mean", "low", "high", "n", "pairs", "chance"]


def language_tables(alignment: pd.DataFrame) -> tuple[list[Table], list[Record]]:
    """Return a table for each kind of texts that were probed in several languages, and a record for each number."""
    tables: list[Table] = []
    records: list[Record] = []
    families = languages_by_texts(alignment)
    for position, family in enumerate(families, 1):
        numbers = _numbers(family)
        suffix = f"-{position}" if len(families) > 1 else ""
        tables.append(_table(family, numbers, f"translations-languages{suffix}"))
        records += [_record(family, row) for row in numbers.to_dict("records")]
    return tables, records


def _numbers(family: Family) -> pd.DataFrame:
    """Return the mean over probes of each line, language and measure, and the means over the languages of a group."""
    layer = retrieval_layer(int(family.rows["layer"].max()) + 1)
    parts: list[dict[str, Any]] = []
    for line, own in family.lines():
        rest = list(dict.fromkeys(own["language"]))
        for name, codes in GROUPS.items():
            members = [code for code in codes if code in rest]
            rest = [code for code in rest if code not in members]
            parts += _of_languages(own, members, line, layer)
            parts += _of_group(parts, members, line, f"{name}, mean of {len(members)}", layer)
        parts += _of_languages(own, rest, line, layer)
    return pd.DataFrame(parts, columns=_COLUMNS)


def _of_languages(own: pd.DataFrame, codes: Sequence[str], line: str, layer: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for code in codes:
        probes = own[own["language"] == code]
        for measure in _MEASURES:
            at = mean_by_layer(probes[(probes["measure"] == measure) & (probes["layer"] == layer)])
            if not at.empty:  # probes of earlier versions have no CSLS
                rows.append(
                    {
                        **{"of": line, "language": code, "measure": measure, "layer": layer},
                        **{name: at.loc[layer, name] for name in ("mean", "low", "high", "n")},
                        **{"pairs": probes["n"].max(), "chance": probes["chance_p1"].mean()},
                    }
                )
    return rows


def _of_group(
    parts: Sequence[dict[str, Any]], members: Sequence[str], line: str, name: str, layer: int
) -> list[dict[str, Any]]:
    """Return the unweighted mean over the languages of a group with several, by measure that all of them have."""
    found = pd.DataFrame(parts, columns=_COLUMNS)
    found = found[(found["of"] == line) & found["language"].isin(members)]
    by_measure = found.groupby("measure", sort=False)[["mean", "chance"]].agg(["mean", "count"])
    return [
        {
            **{"of": line, "language": name, "measure": measure, "layer": layer, "n": len(members)},
            **{"mean": row["mean", "mean"], "chance": row["chance", "mean"]},
        }
        for measure, row in by_measure.iterrows()
        if row["mean", "count"] == len(members) > 1
    ]


def _table(family: Family, numbers: pd.DataFrame, name: str) -> Table:
    body: list[tuple[Cell, ...]] = []
    for (line, language), rows in numbers.groupby(["of", "language"], sort=False):
        first = rows.iloc[0]
        values = rows.set_index("measure")["mean"]
        scores = [
            cell(*(fixed(values[key], 3) if key in values else "–" for key in (f"p1/to/{space}", f"p1/from/{space}")))
            for space in _SPACES
        ]
        pairs = "" if pd.isna(first["pairs"]) else f"{first['pairs']:.0f}"
        interval = "" if pd.isna(first["low"]) else f"{fixed(first['low'], 3)} to {fixed(first['high'], 3)}"
        body.append(
            (
                *(cell(str(line)), cell(language_name(str(language))), cell(pairs), cell(fixed(first["chance"], 4))),
                *(scores[0], cell(interval), *scores[1:], cell(f"{first['n']:.0f}")),
            )
        )
    layer = int(numbers["layer"].iloc[0])
    return Table(
        name=name,
        title="Translations by language.",
        caption=(
            f"{family.about} Share of texts whose nearest neighbour is their translation (P@1), from {family.source} / "
            f"to {family.source}, after block {layer} (counted from 0): the layer at which XTREME-R's code measures "
            f"Tatoeba, in proportion to the depth. The interval is that of the raw score from {family.source}, over "
            "probes or, of one, over its pairs; n is the number of probes, or of languages, weighed equally in a mean. "
            "Scores of languages with different numbers of pairs, and so of chance, are not comparable."
        ),
        header=("of", "language", "pairs", "chance", "P@1, raw", "95 % interval", "P@1, centred", "P@1, CSLS", "n"),
        rows=tuple(body),
        labels=2,
        numbers=numbers,
    )


def _record(family: Family, row: Mapping[Hashable, Any]) -> Record:
    note = f"P@1 after block {row['layer']}, chance {row['chance']:.4f}; n probes, or languages; {family.about}"
    return Record(
        outcome="",
        analysis=ANALYSIS,
        test=str(row["measure"]),
        groups=(str(row["of"]), str(row["language"])),
        effect=row["mean"],
        interval=(row["low"], row["high"]),
        n=row["n"],
        note=note,
    )
