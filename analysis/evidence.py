"""Everything that is known of some runs, as records: what was measured, every test, the derived views, the claims."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.claims import claims
from analysis.claims.claims import Claim
from analysis.claims.verdicts import Verdict
from analysis.measures import layer_shares, lexical_injection, scores
from analysis.measures.shallow_baselines import floor_records, mean_record
from analysis.measures.summaries import derived, item_records, summarise
from analysis.records import Record, find
from analysis.runs.design import Design
from analysis.runs.language_probes import LanguageProbes
from analysis.runs.representation_probes import RepresentationProbes
from analysis.stats.blocked import F_TEST, blocked
from analysis.stats.cells import rows
from analysis.stats.effects import effects
from analysis.stats.equivalence import equivalence
from analysis.stats.groupings import TEXT, groupings
from analysis.stats.own_errors import own_errors
from analysis.stats.paired import paired
from analysis.stats.power import item_power, power
from analysis.stats.ranks import ranks
from analysis.stats.replication import replication
from analysis.tables import injection, layers, representations
from analysis.tables.formats import Table
from analysis.tables.paper import make_tables

OUTCOMES = ("en", "tl")
FORGETTING, LANGUAGES = "forgetting", "F1 by language"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The records in the order of `statistics.json`, the tables, and each claim with what the runs make of it.

    A record about neither outcome (a count, a parameter, a time) has the outcome "".
    """

    records: tuple[Record, ...]
    tables: tuple[Table, ...]
    judged: tuple[tuple[Claim, Verdict], ...]
    margin: float


def gather(
    table: pd.DataFrame,
    items: pd.DataFrame,
    design: Design,
    probes: LanguageProbes,
    insides: RepresentationProbes,
    *,
    injected: pd.DataFrame,
    margin: float,
    own_claims: Path | None = None,
) -> Evidence:
    """Compute it all. `margin` is in F1 points; `own_claims` is a file of claims beside the paper's.

    The table has the columns of `probes.join`; either it or `injected`, the runs of lexical injection, may be empty.

    Raises:
        OptionError: the file of claims is not of its form.
    """
    # The paper's claims are about F1; where there is none, those of one's own are still answered.
    judged = [*claims.judge_all(_claims(own_claims, papers=len(table) > 0), table, margin=margin)]
    tables, described = make_tables(table)
    found = [*design_records(table, injected, design, items), *described]
    if len(table):
        found += _comparisons(table, items, margin)
    found += claims.records(judged)
    of_injection = lexical_injection.injection_records(injected)
    settings = sorted(set(table["setting"]))
    of_layers = [*layer_shares.share_records(probes.shares, settings), *layer_shares.correlation_records(table)]
    of_layers += layer_shares.agreement_records(probes.agreement, settings)
    found += [*of_injection, *layer_shares.count_records(probes), *of_layers]
    tables += injection.make_tables(injected, of_injection)
    tables += layers.make_tables(of_layers, probes.shares, settings)
    shown, of_insides = representations.make(insides)
    tables, found = [*tables, *shown], [*found, *of_insides]
    return Evidence(records=tuple(found), tables=tuple(tables), judged=tuple(judged), margin=margin)


def _comparisons(table: pd.DataFrame, items: pd.DataFrame, margin: float) -> list[Record]:
    """Return what is tested of methods, and what is derived of their scores."""
    found: list[Record] = []
    for outcome in OUTCOMES:
        primary = blocked(table, outcome=outcome)
        found += primary
        found += groupings(primary, outcome=outcome)
        found += _by_setting(table, outcome)
        found += own_errors(table, outcome=outcome)
        found += ranks(table, outcome=outcome)
        found += equivalence(table, outcome=outcome, margin=margin)
        found += replication(table, outcome=outcome)
        found += paired(items, outcome=outcome)
        found += effects(table, outcome=outcome)
        found += power(table, outcome=outcome, margin=margin)
        found += item_power(items, outcome=outcome)
        found += derived(table, outcome=outcome, margin=margin)
        found += item_records(items, outcome=outcome)
        found += _more_views(table, outcome)
    return found


def design_records(table: pd.DataFrame, injected: pd.DataFrame, design: Design, items: pd.DataFrame) -> list[Record]:
    """Return the counts that tell how much there is to go by."""
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
    found = [_count(test, n) for test, n in counts.items()]
    if len(items):
        sizes = items.groupby(["run_id", "outcome"], observed=True).size()
        found.append(_count("test items a run, least", int(sizes.min())))
        found.append(_count("test items a run, most", int(sizes.max())))
    for outcome in OUTCOMES:
        scored = table[table["outcome"] == outcome]
        base = 100 * scored["base_f1"].astype(float)
        if base.notna().any():
            note = "points, mean over blocks of language and ratio of what their base model scores"
            found.append(mean_record("base F1", (), outcome, scored, base, note))
        found += floor_records(table, outcome)
        own = rows(table, outcome)
        for method, values in own.groupby("method", sort=True)["value"]:
            note = "points, over all runs; effect is the mean, statistic the standard deviation"
            found.append(
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
    return found


def _count(test: str, n: int) -> Record:
    return Record(outcome="", analysis="design", test=test, groups=(), n=n)


def _claims(own: Path | None, *, papers: bool) -> list[Claim]:
    return [*(claims.load() if papers else ()), *(claims.load(own) if own else ())]


def _by_setting(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return the primary test and the grouping in each setting, where there are several."""
    found: list[Record] = []
    if table["setting"].nunique() > 1:
        for setting, own in table.groupby("setting", sort=True):
            primary = blocked(own, outcome=outcome)
            kept = [*find(primary, test=F_TEST), *find(groupings(primary, outcome=outcome), test=TEXT)]
            found += [replace(record, analysis=f"{record.analysis} in {setting}") for record in kept]
    return found


def _more_views(table: pd.DataFrame, outcome: str) -> list[Record]:
    """Return F1 by language, and what was lost on tasks that were not trained, where runs have scores of those."""
    found = summarise(
        rows(table, outcome), analysis=LANGUAGES, outcome=outcome, by=("method", "language"), note="points"
    )
    columns = {c.removeprefix("test/") for c in map(str, table) if c.startswith("test/") and c.endswith("/f1")}
    untrained = sorted(c for c in columns - {"en/f1", "tl/f1"} if f"base/{c}" in table) if outcome == "tl" else ()
    for metric in untrained:
        lost = scores.forgetting(table, before=f"base/{metric}", after=f"test/{metric}")
        note = f"{metric.removesuffix('/f1')}, points below the base model"
        found += summarise(lost, analysis=FORGETTING, outcome=outcome, by=("method",), note=note)
    return found
