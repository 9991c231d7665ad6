"""The language probes of the runs in a table: which count, and the share of each language by layer that they found.

Shares depend on how a probe was made more than on the model, so probes of unlike choices are never put together: those
that most runs share are used, and the others are listed.
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
)
from analysis.runs.pull import Runs, mixed_versions

if TYPE_CHECKING:
    from mlflow.entities import Run

LEVELS = ("token", "sequence")
SHARES = {"en": "english", "tl": "target"}
"""The shares by the names of outcomes, and what the probe calls them."""
_SAID = {f"{level}/{said}": (level, share) for level in LEVELS for share, said in SHARES.items()}
CEILING = EMBEDDING
"""The layer that stands for the true input."""
CHOICES = (
    *("detector", "final_norm", "positions", "top_k", "unreliable", "special_tokens", "candidates", "arithmetic"),
    *("min_bytes", "max_bytes", "probe_version"),
)
"""The params that decide a share beside the model and the items. `level` is none: both levels are always measured."""
_OF_PROBE = ("probe_id", "run_id", "setting", "language", "method", "variant", "tl_ratio", "seed")
_COLUMNS = (*_OF_PROBE, "level", "share", "layer", "value", "low", "high", "n")
_AGREED = ("probe_id", "setting", "language", "level", "kappa", "n")


@dataclass(frozen=True, kw_only=True)
class LanguageProbes:
    """What the language probes of some runs hold.

    Attributes:
        shares: a row per probe, level ("token", "sequence"), share ("en", "tl") and layer (from 0; -1 is the true
            input): its value (0 to 1, or NaN), the probe's interval over items (low, high) and their number n, with
            probe_id, and of the run it looked into run_id, setting, language, method, variant, tl_ratio and seed. Of a
            base model the run_id is "", and the method always "base model".
        agreement: a row per probe and level: Cohen's kappa of its detector and the other one, NaN where it was not
            measured, and on how many tokens or texts, with probe_id, setting and language.
        choices: how the probes that are used were made.
        failed, unfinished: probes without a result.
        duplicates: finished probes of which another one is used.
        left_out: finished probes that do not go with the rest, or with no run.
        others: probes of kinds that no part of the report reads, by kind.
        notes: sentences about uneven versions.
    """

    shares: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_COLUMNS)))
    agreement: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_AGREED)))
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
class _Read:
    """A finished probe, and a place of the table that it belongs to; `run_id` is "" for a base model."""

    probe: Run
    run_id: str
    place: Mapping[str, Any]

    @property
    def reads(self) -> tuple[str, str]:
        """The setting and the language of its items."""
        return self.place["setting"], self.place["language"]


def share_column(level: str, share: str, layer: int) -> str:
    """Return the name of a share in the table of runs: `probe/token/tl_share/30`."""
    return f"probe/{level}/{share}_share/{layer}"


def fetch(found: Runs, *, cache: Path | None = None) -> LanguageProbes:
    """Read the language probes among what was pulled, as far as they belong to the runs in the table.

    Their files are kept in `cache` where they have to be downloaded.
    """
    kinds = Counter(run.data.params.get("kind", "language") for run in found.probes)
    probes = [run for run in found.probes if run.data.params.get("kind", "language") == "language"]
    probes.sort(key=lambda run: (run.info.end_time or 0, run.info.run_id))
    failed, unfinished, finished = group_by_status(probes)
    left_out: list[Issue] = []
    reads = _placed(finished, found.table, left_out)
    choices = _commonest(((_choices(read.probe), read.run_id != "") for read in reads), ())
    reads = _alike(reads, choices, left_out)
    contents = _files(reads, cache, left_out)
    kept, duplicates = _newest([read for read in reads if read in contents])
    shares = _shares({read: contents[read] for read in kept})
    used = set(shares["probe_id"])
    params = [dict(run.data.params) for run in finished if run.info.run_id in used]
    versions = mixed_versions(pd.DataFrame(params)).items()
    return LanguageProbes(
        shares=shares,
        agreement=_agreement([read for read in kept if read.probe.info.run_id in used]),
        choices=dict(zip(CHOICES, choices, strict=False)),
        failed=failed,
        unfinished=unfinished,
        duplicates=duplicates,
        left_out=tuple(dict.fromkeys(left for left in left_out if left.run_id not in used)),
        others={kind: kinds[kind] for kind in sorted(kinds) if kind not in ("language", *REPRESENTATION_KINDS)},
        notes=tuple(f"Probes were made with several versions of {p}: {', '.join(v)}." for p, v in versions),
    )


def join_shares(table: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """Return the table of runs with a column for each level, share and layer (see `column`), NaN without a probe.

    An English result that several languages share has none: the probes are of one language each.
    """
    own = shares[(shares["run_id"] != "") & (shares["layer"] != CEILING)]
    if own.empty:
        return table
    names = [share_column(*key) for key in zip(own["level"], own["share"], own["layer"], strict=True)]
    wide = own.assign(name=names).pivot(index="run_id", columns="name", values="value")[list(dict.fromkeys(names))]
    wanted = wide.reindex(table["run_id"].where(table["language"] != ""))
    return pd.concat([table, wanted.set_axis(table.index)], axis=1)


def _placed(finished: Sequence[Run], table: pd.DataFrame, left_out: list[Issue]) -> list[_Read]:
    """Find the run of each probe, or for one of a base model the settings that start from it."""
    rows: list[Any] = table[table["outcome"] == "tl"].to_dict("records")
    by_id = {row["run_id"]: row for row in rows}
    # The same spec gives the same result: of two such runs one is used, and a probe of either is not done again.
    by_fingerprint = {row["fingerprint"]: row for row in rows if row.get("fingerprint")}
    bases: dict[tuple[str, ...], dict[tuple[str, str], Any]] = defaultdict(dict)
    for row in rows:
        key = tuple(str(row.get(name, "")) for name in ("model_digest", "precision", "quantization", "language"))
        bases[key][row["setting"], row["language"]] = row
    reads = []
    for run in finished:
        params, source = run.data.params, run.data.tags.get("whichlora.source")
        language = params.get("language", "")
        if source is None:
            start = tuple(params.get(name, "") for name in ("model_digest", "precision", "quantization"))
            own = bases.get((*start, language)) or ("+" in language and bases.get((*start, "pooled"))) or {}
            reads += [_Read(run, "", place) for place in own.values()]
            if not own:
                left_out.append(
                    probe_issue(run, "no run here has its base model, precision, quantization and language")
                )
            continue
        found = by_id.get(source) or by_fingerprint.get(params.get("source_fingerprint", ""))
        if found is None:
            left_out.append(probe_issue(run, f"its source run {source} is not among those used here"))
        elif language not in ("", found["language"]) and not (found["language"] == "pooled" and "+" in language):
            left_out.append(
                probe_issue(run, f"reads {language}, and the target language of its run is {found['language']}")
            )
        else:
            reads.append(_Read(run, found["run_id"], found))
    return reads


def _alike(reads: Sequence[_Read], choices: tuple[str, ...], left_out: list[Issue]) -> list[_Read]:
    """Keep the probes of these choices and, in each setting and language, of the items that most have read."""
    kept = []
    for read in reads:
        own = _choices(read.probe)
        differs = [
            f"{name} {mine or 'none'}, not {theirs or 'none'}"
            for name, mine, theirs in zip(CHOICES, own, choices, strict=True)
            if mine != theirs
        ]
        if differs:
            left_out.append(probe_issue(read.probe, f"was made with {', '.join(differs)} as those used"))
        else:
            kept.append(read)
    digests: dict[tuple[str, str], list[tuple[str, bool]]] = defaultdict(list)
    for read in kept:
        digests[read.reads].append((read.probe.data.params.get("items_digest", ""), read.run_id != ""))
    usual = {place: _commonest(found, "") for place, found in digests.items()}
    for read in kept:
        if read.probe.data.params.get("items_digest", "") != usual[read.reads]:
            n = read.probe.data.params.get("items", "?")
            left_out.append(
                probe_issue(read.probe, f"reads other items ({n}) than most probes of {', '.join(read.reads)}")
            )
    return [read for read in kept if read.probe.data.params.get("items_digest", "") == usual[read.reads]]


def _newest(reads: Sequence[_Read]) -> tuple[list[_Read], tuple[Issue, ...]]:
    """Keep of several probes of a run, or of a base model in a place, the one that ended last, and tell of the rest."""
    last = {(read.run_id, *read.reads): read for read in reads}  # they are in the order of their ends
    kept = {read.probe.info.run_id for read in last.values()}
    text = "is of the same model and made in the same way as {}, which ended later and is used"
    again = [
        probe_issue(read.probe, text.format(last[(read.run_id, *read.reads)].probe.info.run_id))
        for read in reads
        if read.probe.info.run_id not in kept
    ]
    return list(last.values()), tuple(dict.fromkeys(again))


def _files(reads: Sequence[_Read], cache: Path | None, left_out: list[Issue]) -> dict[_Read, pa.Table]:
    """Read `layers.parquet` of each probe that has one with shares of languages."""
    by_id = read_layers(list({read.probe.info.run_id: read.probe for read in reads}.values()), cache)
    good = {name: table for name, table in by_id.items() if _SAID.keys() & set(table["measure"].to_pylist())}
    text = "has no layers.parquet that can be read"
    left_out += [probe_issue(read.probe, text) for read in reads if read.probe.info.run_id not in good]
    return {read: good[read.probe.info.run_id] for read in reads if read.probe.info.run_id in good}


def _shares(contents: Mapping[_Read, pa.Table]) -> pd.DataFrame:
    """Put the tables of probes into one, with what is known of their runs."""
    if not contents:
        return LanguageProbes().shares
    counts = [table.num_rows for table in contents.values()]
    columns = {name: np.repeat(np.array([_of(read)[name] for read in contents]), counts) for name in _OF_PROBE}
    for key in LAYER_COLUMNS:
        columns[key] = np.concatenate([table[key].to_numpy() for table in contents.values()])
    shares = pd.DataFrame(columns)
    shares = shares[shares["measure"].isin(_SAID)]
    for position, key in enumerate(("level", "share")):
        shares[key] = shares["measure"].map({name: said[position] for name, said in _SAID.items()})
    order = ["setting", "language", "method", "tl_ratio", "seed", "probe_id", "level", "share", "layer"]
    return shares.sort_values(order, kind="stable", ignore_index=True)[list(_COLUMNS)]


def _agreement(reads: Sequence[_Read]) -> pd.DataFrame:
    """Return what each probe has logged of its two detectors."""
    rows = [
        {
            **{name: _of(read)[name] for name in ("probe_id", "setting", "language")},
            "level": level,
            "kappa": read.probe.data.metrics.get(f"kappa/{level}", math.nan),
            "n": int(read.probe.data.metrics.get("kappa/n") or _compared(read.probe.data.params)),
        }
        for read in reads
        for level in LEVELS
    ]
    return pd.DataFrame(rows, columns=list(_AGREED))


def _compared(params: Mapping[str, str]) -> int:
    """Return on how many tokens, and texts, a probe compared its detectors: as `whichlora.probing.agreement` draws.

    The option says about how many; probes before version 3 do not log the number itself.
    """
    wanted, items = (int(params.get(name) or 0) for name in ("agreement", "items"))
    if not wanted or not items:
        return 0
    return math.ceil(wanted / items) * math.ceil(items / math.ceil(items / wanted))


def _of(read: _Read) -> dict[str, Any]:
    """Return what `shares` says of the run behind a probe."""
    own = {"probe_id": read.probe.info.run_id, "run_id": read.run_id}
    own |= {name: read.place[name] for name in _OF_PROBE if name not in own}
    of_base = read.run_id == "" or read.place["variant"] == UNTRAINED
    return own | {"method": BASE, "variant": UNTRAINED} if of_base else own


def _choices(run: Run) -> tuple[str, ...]:
    return tuple(run.data.params.get(name, "") for name in CHOICES)


def _commonest(found: Iterable[tuple[Any, bool]], default: Any) -> Any:
    """Return what most have, those with a run first; equally frequent ones by their text."""
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0])
    for value, of_run in found:
        counts[value][0] += of_run
        counts[value][1] += 1
    return max(counts, key=lambda value: (counts[value], str(value)), default=default)
