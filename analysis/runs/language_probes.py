"""Reads the language probes of the runs in a table: the share of each language by layer.

Shares depend on the options of the probe more than on the model, so probes with different options are never combined:
the options that most runs share are used, and the other probes are listed as left out.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.runs.design import Issue
from analysis.runs.methods import UNTRAINED
from analysis.runs.probe_runs import (
    BASE,
    EMBEDDING,
    LAYER_COLUMNS,
    REPRESENTATION_KINDS,
    group_by_status,
    probe_issue,
    read_layers,
    reads,
)
from analysis.runs.tidy import Runs, mixed_versions

if TYPE_CHECKING:
    from mlflow.entities import Run

LEVELS = ("token", "sequence")
SHARES = {"en": "english", "tl": "target"}
"""The shares by outcome, and their names in the probe's measures."""
_MEASURES = {f"{level}/{said}": (level, share) for level in LEVELS for share, said in SHARES.items()}
CEILING = EMBEDDING
"""The layer index that stands for the true input, the upper bound of a share."""
CHOICES = (
    *("detector", "final_norm", "positions", "top_k", "unreliable", "special_tokens", "candidates", "arithmetic"),
    *("min_bytes", "max_bytes", "probe_version"),
)
"""The params, besides model and items, that determine a share. `level` is not one: both levels are always measured."""
_PROBE_COLUMNS = ("probe_id", "run_id", "setting", "language", "method", "variant", "tl_ratio", "seed")
_COLUMNS = (*_PROBE_COLUMNS, "level", "share", "layer", "value", "low", "high", "n")
_AGREEMENT_COLUMNS = ("probe_id", "setting", "language", "level", "kappa", "n")


@dataclass(frozen=True, kw_only=True)
class LanguageProbes:
    """The language probes of the analysed runs.

    Attributes:
        shares: one row per probe, level ("token", "sequence"), share ("en", "tl") and layer (from 0; -1 is the true
            input): its value (0 to 1, or NaN), the probe's interval over items (low, high) and their number n, the
            probe_id, and the run_id, setting, language, method, variant, tl_ratio and seed of the probed run. For a
            base model the run_id is "" and the method is "base model".
        agreement: one row per probe and level: Cohen's kappa between its two detectors (NaN if not measured) and the
            number of tokens or texts compared, with probe_id, setting and language.
        choices: the options of the probes that are used.
        failed, unfinished: probes without a result.
        duplicates: finished probes that were superseded by another probe.
        left_out: finished probes that have other options or items, no readable file, or no matching run.
        others: number of probes of kinds that the report does not use, by kind.
        notes: sentences about mixed versions.
    """

    shares: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_COLUMNS)))
    agreement: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_AGREEMENT_COLUMNS)))
    choices: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[Issue, ...] = ()
    unfinished: tuple[Issue, ...] = ()
    duplicates: tuple[Issue, ...] = ()
    left_out: tuple[Issue, ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[str, ...]:
        """The ids of the probes behind `shares`."""
        return tuple(sorted(set(self.shares["probe_id"])))


@dataclass(frozen=True, eq=False)
class _Match:
    """A finished probe and the row of its run; of a base model, `run_id` is "" and the run starts from it."""

    probe: Run
    run_id: str
    row: Mapping[str, Any]

    @property
    def cell(self) -> tuple[str, str]:
        """The setting and the language of the probe's items."""
        return self.row["setting"], self.row["language"]


def share_column(level: str, share: str, layer: int) -> str:
    """Return the column of a share in the table of runs, such as `probe/token/tl_share/30`."""
    return f"probe/{level}/{share}_share/{layer}"


def fetch(runs: Runs, *, cache: Path | None = None) -> LanguageProbes:
    """Read the pulled language probes that belong to runs in the table.

    Downloaded files are kept in `cache`.
    """
    kinds = Counter(run.data.params.get("kind", "language") for run in runs.probes)
    probes = [run for run in runs.probes if run.data.params.get("kind", "language") == "language"]
    probes.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
    failed, unfinished, finished = group_by_status(probes)
    left_out: list[Issue] = []
    matches = _match_runs(finished, runs.table, left_out)
    choices = _most_common(((_choices(match.probe), match.run_id != "") for match in matches), ())
    matches = _with_choices(matches, choices, left_out)
    tables = _read_files(matches, cache, left_out)
    latest, duplicates = _newest([match for match in matches if match in tables])
    shares = _shares({match: tables[match] for match in latest})
    used = set(shares["probe_id"])
    params = [dict(run.data.params) for run in finished if run.info.run_id in used]
    versions = mixed_versions(pd.DataFrame(params)).items()
    return LanguageProbes(
        shares=shares,
        agreement=_agreement([match for match in latest if match.probe.info.run_id in used]),
        choices=dict(zip(CHOICES, choices, strict=False)),
        failed=failed,
        unfinished=unfinished,
        duplicates=duplicates,
        left_out=tuple(dict.fromkeys(left for left in left_out if left.run_id not in used)),
        others={kind: kinds[kind] for kind in sorted(kinds) if kind not in ("language", *REPRESENTATION_KINDS)},
        notes=tuple(f"Probes were made with several versions of {p}: {', '.join(v)}." for p, v in versions),
    )


def join_shares(table: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """Return the table of runs with a column for each level, share and layer (see `share_column`), NaN without a probe.

    English results that several languages share get NaN, because a probe covers one language.
    """
    of_runs = shares[(shares["run_id"] != "") & (shares["layer"] != CEILING)]
    if of_runs.empty:
        return table
    names = [share_column(*key) for key in zip(of_runs["level"], of_runs["share"], of_runs["layer"], strict=True)]
    wide = of_runs.assign(name=names).pivot(index="run_id", columns="name", values="value")[list(dict.fromkeys(names))]
    joined = wide.reindex(table["run_id"].where(table["language"] != ""))
    return pd.concat([table, joined.set_axis(table.index)], axis=1)


def _match_runs(finished: Sequence[Run], table: pd.DataFrame, left_out: list[Issue]) -> list[_Match]:
    """Match each probe with its run or, for a base model, with the settings that start from it."""
    rows: list[Any] = table[table["outcome"] == "tl"].to_dict("records")
    by_id = {row["run_id"]: row for row in rows}
    # Runs with the same spec have the same result, so a probe of a duplicate run also holds for the run that is used.
    by_fingerprint = {row["fingerprint"]: row for row in rows if row.get("fingerprint")}
    bases: dict[tuple[str, ...], dict[tuple[str, str], Any]] = defaultdict(dict)
    for row in rows:
        key = tuple(str(row.get(name, "")) for name in ("model_digest", "precision", "quantization", "language"))
        bases[key][row["setting"], row["language"]] = row
    matches = []
    for run in finished:
        params, source = run.data.params, run.data.tags.get("whichlora.source")
        language = params.get("language", "")
        if source is None:
            start = tuple(params.get(name, "") for name in ("model_digest", "precision", "quantization"))
            settings = next((own for key, own in bases.items() if key[:3] == start and reads(language, key[3])), {})
            matches += [_Match(run, "", row) for row in settings.values()]
            if not settings:
                problem = "no run here has its base model, precision, quantization and language"
                left_out.append(probe_issue(run, problem))
            continue
        row = by_id.get(source) or by_fingerprint.get(params.get("source_fingerprint", ""))
        if row is None:
            left_out.append(probe_issue(run, f"its source run {source} is not among the runs used here"))
        elif language and not reads(language, row["language"]):
            left_out.append(
                probe_issue(run, f"reads {language}, and the target language of its run is {row['language']}")
            )
        else:
            matches.append(_Match(run, row["run_id"], row))
    return matches


def _with_choices(matches: Sequence[_Match], choices: tuple[str, ...], left_out: list[Issue]) -> list[_Match]:
    """Keep the probes with the given choices and, in each setting and language, with the most common items."""
    same_choices = []
    for match in matches:
        options = _choices(match.probe)
        differs = [
            f"{name} {value or 'none'}, not {expected or 'none'}"
            for name, value, expected in zip(CHOICES, options, choices, strict=True)
            if value != expected
        ]
        if differs:
            left_out.append(probe_issue(match.probe, f"was made with {', '.join(differs)} as those used"))
        else:
            same_choices.append(match)
    digests: dict[tuple[str, str], list[tuple[str, bool]]] = defaultdict(list)
    for match in same_choices:
        digests[match.cell].append((match.probe.data.params.get("items_digest", ""), match.run_id != ""))
    usual_digest = {key: _most_common(counted, "") for key, counted in digests.items()}
    for match in same_choices:
        if match.probe.data.params.get("items_digest", "") != usual_digest[match.cell]:
            n = match.probe.data.params.get("items", "?")
            left_out.append(
                probe_issue(match.probe, f"reads other items ({n}) than most probes of {', '.join(match.cell)}")
            )
    return [m for m in same_choices if m.probe.data.params.get("items_digest", "") == usual_digest[m.cell]]


def _newest(matches: Sequence[_Match]) -> tuple[list[_Match], tuple[Issue, ...]]:
    """Keep the last probe of each run, or of a base model in each setting and language; return the others as issues."""
    last = {(match.run_id, *match.cell): match for match in matches}  # probes are sorted by end time
    kept_ids = {match.probe.info.run_id for match in last.values()}
    text = "is of the same model and made in the same way as {}, which ended later and is used"
    duplicates = [
        probe_issue(match.probe, text.format(last[(match.run_id, *match.cell)].probe.info.run_id))
        for match in matches
        if match.probe.info.run_id not in kept_ids
    ]
    return list(last.values()), tuple(dict.fromkeys(duplicates))


def _read_files(matches: Sequence[_Match], cache: Path | None, left_out: list[Issue]) -> dict[_Match, pa.Table]:
    """Read the `layers.parquet` of each probe; probes without one that holds language shares are left out."""
    by_id = read_layers(list({match.probe.info.run_id: match.probe for match in matches}.values()), cache)
    readable = {name: table for name, table in by_id.items() if _MEASURES.keys() & set(table["measure"].to_pylist())}
    text = "has no layers.parquet that can be read"
    left_out += [probe_issue(match.probe, text) for match in matches if match.probe.info.run_id not in readable]
    return {match: readable[match.probe.info.run_id] for match in matches if match.probe.info.run_id in readable}


def _shares(tables: Mapping[_Match, pa.Table]) -> pd.DataFrame:
    """Concatenate the tables of the probes and add the fields of their runs."""
    if not tables:
        return LanguageProbes().shares
    counts = [table.num_rows for table in tables.values()]
    columns = {name: np.repeat(np.array([_fields(match)[name] for match in tables]), counts) for name in _PROBE_COLUMNS}
    for key in LAYER_COLUMNS:
        columns[key] = np.concatenate([table[key].to_numpy() for table in tables.values()])
    shares = pd.DataFrame(columns)
    shares = shares[shares["measure"].isin(_MEASURES)]
    for position, key in enumerate(("level", "share")):
        shares[key] = shares["measure"].map({name: names[position] for name, names in _MEASURES.items()})
    order = ["setting", "language", "method", "tl_ratio", "seed", "probe_id", "level", "share", "layer"]
    return shares.sort_values(order, kind="stable", ignore_index=True)[list(_COLUMNS)]


def _agreement(matches: Sequence[_Match]) -> pd.DataFrame:
    """Return the agreement of the two detectors that each probe has logged."""
    rows = [
        {
            **{name: _fields(match)[name] for name in ("probe_id", "setting", "language")},
            "level": level,
            "kappa": match.probe.data.metrics.get(f"kappa/{level}", math.nan),
            "n": _number_compared(match.probe),
        }
        for match in matches
        for level in LEVELS
    ]
    return pd.DataFrame(rows, columns=list(_AGREEMENT_COLUMNS))


def _number_compared(probe: Run) -> int:
    """Return the number of tokens, and of texts, on which a probe compared its detectors.

    Probes before version 3 do not log it, so it is computed from the option as the probe draws its sample: roughly.
    """
    try:
        logged = int(probe.data.metrics.get("kappa/n") or 0)
        wanted, items = (int(probe.data.params.get(name) or 0) for name in ("agreement", "items"))
    except (ValueError, OverflowError):  # no number
        return 0
    if logged or wanted < 1 or items < 1:
        return logged
    return math.ceil(wanted / items) * math.ceil(items / math.ceil(items / wanted))


def _fields(match: _Match) -> dict[str, Any]:
    """Return the fields of a probe and its run that `shares` holds."""
    fields = {"probe_id": match.probe.info.run_id, "run_id": match.run_id}
    fields |= {name: match.row[name] for name in _PROBE_COLUMNS if name not in fields}
    of_base = match.run_id == "" or match.row["variant"] == UNTRAINED
    return fields | {"method": BASE, "variant": UNTRAINED} if of_base else fields


def _choices(run: Run) -> tuple[str, ...]:
    return tuple(run.data.params.get(name, "") for name in CHOICES)


def _most_common(values: Iterable[tuple[Any, bool]], default: Any) -> Any:
    """Return the most common value, counting probes of runs before those of base models; ties are broken by text."""
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for value, of_run in values:
        counts[value][0] += of_run
        counts[value][1] += 1
    return max(counts, key=lambda value: (counts[value], str(value)), default=default)
