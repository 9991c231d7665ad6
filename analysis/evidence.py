"""Computes all records of an analysis: counts, measurements, tests, derived scores and verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.claims import claims
from analysis.claims.claims import Claim
from analysis.claims.verdicts import Verdict
from analysis.measures import floored_blocks, layer_shares, lexical_injection, scores
from analysis.measures.costs import device_times
from analysis.measures.disagreements import disagreement_records, disagreements
from analysis.measures.forgetting import forgetting_records
from analysis.measures.further_runs import further_runs
from analysis.measures.shallow_baselines import REACHED, floor_records, mean_record
from analysis.measures.summaries import derived, item_records, summarise
from analysis.naming import names_of
from analysis.records import Record, find
from analysis.robustness.aggregates import aggregates
from analysis.robustness.collapse import collapse_records
from analysis.robustness.influence import influence
from analysis.robustness.two_way import other_items
from analysis.runs.design import Design
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.representation_probes import RepresentationProbes
from analysis.stats.blocked import blocked
from analysis.stats.cells import Cells, cells, rows
from analysis.stats.differences import OTHER, PRIMARY, SCOPES, THESE, cell_differences, differences
from analysis.stats.effects import effects
from analysis.stats.equivalence import equivalence
from analysis.stats.groupings import groupings
from analysis.stats.mixed.mixed_model import mixed_model
from analysis.stats.own_errors import own_errors
from analysis.stats.paired import paired
from analysis.stats.power import detectable_by_size, item_power, power
from analysis.stats.ranks import ranks
from analysis.stats.replication import replication
from analysis.tables import injection, layers, representations
from analysis.tables.formats import Table
from analysis.tables.paper import make_tables

OUTCOMES = ("en", "tl")
LANGUAGES = "F1 by language"
ALL_BLOCKS, COMPARED_FLOORS = "all blocks", "floors in the blocks compared"
BY_SETTING, BY_LANGUAGE = f"{PRIMARY} in ", f"{PRIMARY} for "
P_VALUES = "p values"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the report is made from.

    Attributes:
        records: in the order of `statistics.json`. One about neither outcome (a count, a time) has the outcome "".
        judged: each claim with its verdict.
        margin: of equivalence, in F1 points.
        disagreements: the items on which the methods disagree, as `disagreements` returns them.
        primary: the outcome that the advice is about, fixed in advance: "tl", "en" or "mean".
        outcomes: those that there are results of; "tl" alone for studies in one language.
    """

    records: tuple[Record, ...]
    tables: tuple[Table, ...]
    judged: tuple[tuple[Claim, Verdict], ...]
    margin: float
    disagreements: pd.DataFrame
    primary: str = "tl"
    outcomes: tuple[str, ...] = OUTCOMES


def gather(
    table: pd.DataFrame,
    items: pd.DataFrame,
    design: Design,
    probes: LanguageProbes,
    insides: RepresentationProbes,
    *,
    injected: pd.DataFrame,
    margin: float,
    primary: str = "tl",
    scope: str = THESE,
    claim_files: Sequence[Path] = (claims.PACKAGED["paper"],),
) -> Evidence:
    """Compute all records, tables and verdicts.

    Args:
        table: a row per run and outcome, with the columns that `probes.join` adds; may be empty.
        items: predictions of single test items.
        injected: runs of lexical injection; may be empty.
        margin: of equivalence, in F1 points.
        primary: the outcome that the advice is about, "tl", "en" or "mean".
        scope: of the primary analysis, see `differences`.
        claim_files: the files of the claims to judge.

    Raises:
        OptionError: a file of claims is malformed.
    """
    judged = claims.judge_files(claim_files, table, injected, margin=margin, scope=scope)
    tables, table_records = make_tables(table)
    records = [*names_of(table).records(), *design_records(table, injected, design, items), *table_records]
    if len(table):
        records += _comparisons(table, items, margin, scope)
        if primary not in OUTCOMES:
            records += headline(scores.mean_outcome(table), primary, margin, scope)
        records += [*forgetting_records(table), *device_times(table)]
    disputed = disagreements(items)
    records += [*disagreement_records(disputed), *claims.records(judged)]
    injection_records = lexical_injection.injection_records(injected)
    settings = sorted(set(table["setting"]))
    layer_records = [*layer_shares.share_records(probes.shares, settings), *layer_shares.correlation_records(table)]
    layer_records += layer_shares.agreement_records(probes.agreement, settings)
    records += [*injection_records, *layer_shares.count_records(probes), *layer_records]
    tables += injection.make_tables(injected, injection_records)
    tables += layers.make_tables(layer_records, probes.shares, settings, names_of(table))
    representation_tables, representation_records = representations.make_tables(insides)
    tables, records = [*tables, *representation_tables], [*records, *representation_records]
    tested = sum(record.p is not None for record in records if record.analysis != claims.EVIDENCE)
    records.append(Record(outcome="", analysis="design", test=P_VALUES, groups=(), n=tested))
    return Evidence(
        records=tuple(records),
        tables=tuple(tables),
        judged=tuple(judged),
        margin=margin,
        disagreements=disputed,
        primary=primary,
        outcomes=outcomes_of(table),
    )


def outcomes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return the outcomes that a table has results of; both if it is empty."""
    found = set(table["outcome"]) if len(table) else {*OUTCOMES}
    return tuple(outcome for outcome in OUTCOMES if outcome in found)


def headline(table: pd.DataFrame, outcome: str, margin: float, scope: str) -> list[Record]:
    """Return what the first screen says of an outcome: the differences of both scopes, and how they group the methods.

    Order, letters, intervals and advice follow from the primary scope alone, in the blocks above the floor (see
    `floored_blocks`). If blocks were left out, the records of all blocks come last, as analysis "primary, all blocks".
    """
    kept, records = floored_blocks.split(table, outcome)
    kept_cells = cells(kept, outcome)
    records += [
        replace(record, analysis=COMPARED_FLOORS) for record in find(floor_records(kept, outcome), test=REACHED)
    ]
    for analysis, of_scope in ((PRIMARY, scope), (OTHER, next(other for other in SCOPES if other != scope))):
        records += _grouped(kept_cells, outcome, margin, of_scope, analysis, "" if analysis == PRIMARY else OTHER)
    records += further_runs(kept, kept_cells, records, outcome=outcome, analysis=PRIMARY, scope=scope, margin=margin)
    records += _by_part(kept, outcome, margin, scope)
    if find(records, test=floored_blocks.AT_FLOOR):
        records += _grouped(cells(table, outcome), outcome, margin, scope, f"{PRIMARY}, {ALL_BLOCKS}", ALL_BLOCKS)
    return records


def _grouped(table_cells: Cells, outcome: str, margin: float, scope: str, analysis: str, suffix: str) -> list[Record]:
    """Return the differences and the groupings that follow from them; the groupings' analysis ends with the suffix."""
    found = cell_differences(table_cells, outcome=outcome, scope=scope, margin=margin, analysis=analysis)
    grouped = groupings(found, outcome=outcome, analysis=analysis)
    return [*found, *(replace(r, analysis=r.analysis + (f", {suffix}" if suffix else "")) for r in grouped)]


def _comparisons(table: pd.DataFrame, items: pd.DataFrame, margin: float, scope: str) -> list[Record]:
    """Return the tests between methods, and the scores derived from their F1."""
    records: list[Record] = []
    above_floor = {outcome: floored_blocks.split(table, outcome)[0] for outcome in outcomes_of(table)}
    for outcome in above_floor:
        records += headline(table, outcome, margin, scope)
        records += blocked(table, outcome=outcome)
        records += own_errors(table, outcome=outcome)
        records += mixed_model(table, outcome=outcome)
        records += ranks(table, outcome=outcome)
        records += equivalence(table, outcome=outcome, margin=margin)
        records += replication(table, outcome=outcome)
        records += paired(items, outcome=outcome)
        records += effects(table, outcome=outcome)
        records += power(table, outcome=outcome, margin=margin)
        records += detectable_by_size(above_floor[outcome], outcome=outcome, scope=scope, margin=margin)
        records += item_power(items, outcome=outcome)
        records += derived(table, outcome=outcome, margin=margin)
        records += item_records(items, outcome=outcome)
        records += _by_language(table, outcome)
        records += other_items(table, items, outcome=outcome, scope=scope)
        records += collapse_records(table, items, outcome=outcome)
        records += aggregates(table, outcome=outcome)
    return [*records, *influence(above_floor, scope=scope, margin=margin)]


def design_records(table: pd.DataFrame, injected: pd.DataFrame, design: Design, items: pd.DataFrame) -> list[Record]:
    """Return the size of the design, and for each outcome the base model's F1, the floors and each method's mean F1."""
    tested = table[table["variant"] != "none"]
    languages = set(table["language"]) - {""}
    counts = {
        "runs": design.runs,
        "runs used": len(design.used),
        "adapters": design.adapters,
        "English results that are another run's": design.shared_english,
        "failed runs": len(design.failed),
        "unfinished runs": len(design.unfinished),
        "runs that lack a needed value": len(design.incomplete),
        "runs done twice": len(design.duplicates),
        "incomplete cells": len(design.missing),
        "groups of methods that share no cell": len(design.groups),
        "settings": table["setting"].nunique(),
        "methods": tested["method"].nunique(),
        "languages": len(languages),
        "ratios": table["tl_ratio"].nunique(),
        "seeds": table["seed"].nunique(),
        **{f"runs of kind {kind}": n for kind, n in design.others.items()},
    }
    if design.injected:
        pairs = lexical_injection.trained_runs(injected)
        counts |= {"injection runs": len(design.injected), "injection adapters": pairs["adapter"].nunique()}
        counts |= {f"injection {key}s": pairs[key].nunique() for key in ("method", "language", "seed")}
    records = [_count(test, n) for test, n in counts.items()]
    if len(items):
        sizes = items.groupby(["run_id", "outcome"], observed=True).size()
        records.append(_count("test items a run, least", int(sizes.min())))
        records.append(_count("test items a run, most", int(sizes.max())))
    for outcome in outcomes_of(table):
        scored = table[table["outcome"] == outcome]
        base = 100 * scored["base_f1"].astype(float)
        if base.notna().any():
            note = "points, mean over blocks of language and ratio of what their base model scores"
            records.append(mean_record("base F1", (), outcome, scored, base, note))
        records += floor_records(table, outcome)
        scores_of_methods = rows(table, outcome)
        for method, values in scores_of_methods.groupby("method", sort=True)["value"]:
            note = "points, over all runs; effect is the mean, statistic the standard deviation"
            records.append(
                Record(
                    outcome=outcome,
                    analysis="description",
                    test="mean F1",
                    groups=(str(method),),
                    effect=float(values.mean()),
                    statistic=float(values.std()),
                    n=len(values),
                    note=note,
                )
            )
    return records


def _count(test: str, n: int) -> Record:
    return Record(outcome="", analysis="design", test=test, groups=(), n=n)


def _by_part(table: pd.DataFrame, outcome: str, margin: float, scope: str) -> list[Record]:
    """Return the primary analysis of each setting and language if there are several, at 5 % over the parts."""
    records: list[Record] = []
    for column, prefix in (("setting", BY_SETTING), ("language", BY_LANGUAGE)):
        parts = {name: part for name, part in table.groupby(column, sort=True) if name} if column in table else {}
        if len(parts) < 2 or (column == "language" and outcome == "en"):
            continue
        alpha = 0.05 / len(parts)
        for name, part in parts.items():
            analysis = prefix + str(name)
            compared = differences(part, outcome=outcome, scope=scope, margin=margin, alpha=alpha, analysis=analysis)
            grouped = groupings(compared, outcome=outcome, analysis=analysis, alpha=alpha)
            grouped = [replace(r, analysis=f"groupings{analysis.removeprefix(PRIMARY)}") for r in grouped]
            records += [*compared, *grouped]
    return records


def _by_language(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return F1 by language."""
    by = ("method", "language")
    return summarise(rows(table, outcome), analysis=LANGUAGES, outcome=outcome, by=by, note="points")
