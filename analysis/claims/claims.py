"""Reads claims (statements with tests) and judges from the runs whether each is supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, Field

from analysis.claims.claim_tests import TESTS
from analysis.claims.designs import Design, Needs, lacking, varying
from analysis.claims.selection import Conditions, best_of, select
from analysis.claims.verdicts import Verdict, undecided
from analysis.measures.device_use import not_comparable
from analysis.records import NotTestable, Record
from analysis.stats.cells import UNTRAINED
from analysis.stats.differences import THESE
from whichlora.data.language_names import join_names
from whichlora.errors import did_you_mean
from whichlora.yaml_files import Document, Section, read_document

TESTED, EVIDENCE = "claims tested", "claim evidence"
PACKAGED = {name: Path(__file__).with_name(f"{name}.yaml") for name in ("paper", "field")}
"""The packaged files by the names that the option `claims` has for them."""


def _check_test(name: str) -> str:
    if name not in TESTS:
        raise ValueError(f"{name}; allowed are {', '.join(TESTS)}{did_you_mean(name, TESTS)}")
    return name


def _check_outcome(name: str) -> str:
    if name not in ("en", "tl"):
        raise ValueError(f"{name}; allowed are en, tl")
    return name


class _Entry(Section):
    """The schema of a claim."""

    name: Annotated[str, Field(min_length=1)]
    says: str
    outcome: Annotated[str, AfterValidator(_check_outcome)]
    test: Annotated[str, AfterValidator(_check_test)] | None = None
    undecided: str = ""
    arguments: dict[str, Any] = Field(default_factory=dict)
    margin: Annotated[float, Field(gt=0)] | None = None
    design: str = ""
    where: dict[str, str | int | float] = Field(default_factory=dict)
    needs: dict[str, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)
    source: str = ""


class _ClaimsFile(Section):
    title: str = ""
    designs: dict[str, Design] = Field(default_factory=dict)
    claims: list[_Entry]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement and its test; `paper.yaml` documents the fields.

    Attributes:
        test: "" if no runs of this project can test it; `undecided` then says what design is missing.
        design: the runs that test it, in words.
        where, either, without, best_of: the conditions that select these runs, see `selection`.
        needs: how many values of each column the design has at least, see `designs`.
        same: the columns that the design holds constant within a setting.
        margin: the margin that the claim states, in points; None for that of the analysis.
        collection: the title of its file.
    """

    name: str
    says: str
    outcome: str
    test: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: Conditions = field(default_factory=dict)
    either: tuple[Conditions, ...] = ()
    without: Conditions = field(default_factory=dict)
    best_of: tuple[str, ...] = ()
    needs: Needs = field(default_factory=dict)
    same: tuple[str, ...] = ()
    margin: float | None = None
    undecided: str = ""
    design: str = ""
    source: str = ""
    collection: str = field(default="", compare=False)


def load(path: Path | None = None) -> list[Claim]:
    """Read a file of claims, by default those of the paper.

    Raises:
        OptionError: the file is missing or malformed; the message names the claim and what is allowed.
    """
    document = read_document("claims", path or PACKAGED["paper"])
    content = document.content
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        document.fail((), "must have a list under the key claims")
    parsed = document.parse(_ClaimsFile)
    seen: set[str] = set()
    claims = []
    for index, entry in enumerate(parsed.claims):
        if entry.name in seen:
            document.fail(("claims", index), f"names must be unique; {entry.name} occurs more than once")
        seen.add(entry.name)
        _check(document, index, entry)
        if entry.design and entry.design not in parsed.designs:
            allowed = f"{entry.name}: {entry.design} is not among the designs: {', '.join(parsed.designs) or 'none'}"
            document.fail(("claims", index, "design"), allowed + did_you_mean(entry.design, parsed.designs))
        design = parsed.designs.get(entry.design)
        fields: dict[str, Any] = {
            **dict(entry),
            "test": entry.test or "",
            "collection": parsed.title or Path(document.file).name,
        }
        if design:
            fields |= {
                "design": design.runs,
                "where": dict(design.where) | dict(entry.where),
                "either": tuple(design.either),
                "without": design.without,
                "best_of": tuple(design.best_of),
                "same": tuple(design.same),
                "needs": dict(design.needs) | dict(entry.needs),
            }
        claims.append(Claim(**fields))
    return claims


@lru_cache(maxsize=1)
def paper_designs() -> Mapping[str, Design]:
    """Return the designs of the paper's tables and figures."""
    return read_document("claims", PACKAGED["paper"]).parse(_ClaimsFile).designs


def _check(document: Document, index: int, entry: _Entry) -> None:
    """Refuse a claim with neither a test nor what it lacks, or with arguments that its test does not have."""
    place = "claims", index
    if entry.test is None and not entry.undecided:
        document.fail(place, f"{entry.name} lacks test; a claim that cannot be tested says under undecided why")
    if entry.test is None or entry.undecided:
        for key in ("test", "arguments", "margin"):
            if entry.undecided and getattr(entry, key):
                document.fail((*place, key), f"{entry.name}: has {key}, which a claim with undecided cannot have")
        return
    arguments = *place, "arguments"
    try:
        TESTS[entry.test].check(entry.arguments)
    except TypeError:  # the type of an argument is wrong
        pass
    except ValueError as error:
        document.fail(arguments, f"{entry.name}: {error}")
    document.parse(TESTS[entry.test].argument_types(), arguments)


def judge_files(
    files: Sequence[Path], table: pd.DataFrame, injected: pd.DataFrame, *, margin: float, scope: str
) -> list[tuple[Claim, Verdict]]:
    """Judge the claims of several files as one family, by all runs.

    Those of the paper are about F1 and left out if there are runs of lexical injection alone.

    Raises:
        OptionError: a file is missing or malformed.
    """
    claims = [claim for file in files if file != PACKAGED["paper"] or len(table) for claim in load(file)]
    parts = [part for part in (table, injected) if len(part)]
    runs = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0] if parts else table
    return judge_all(claims, runs, margin=margin, scope=scope)


def judge(
    claim: Claim, table: pd.DataFrame, *, margin: float = 1.0, scope: str = THESE, alpha: float = 0.05
) -> Verdict:
    """Judge a claim by the runs in a table that are of its design.

    `scope` is that of the primary analysis (see `differences`).
    """
    if claim.undecided:
        return undecided(claim.undecided)
    chosen = select(table, claim.where, claim.either, claim.without)
    if chosen.empty or not (chosen["outcome"] == claim.outcome).any():
        # The first condition that no run fulfils says most; if each is fulfilled by some run, all are named.
        lacked = [key for key in claim.where if select(table, {key: claim.where[key]}).empty]
        keys = lacked[:1] or list(claim.where)
        conditions = ", ".join(_condition(key, str(claim.where[key])) for key in keys)
        return undecided(f"there are no runs{f' with {conditions}' * bool(conditions)}")
    if unfit := _unfit(claim, chosen[chosen["outcome"] == claim.outcome]):
        return undecided(unfit)
    options = {"margin": claim.margin or margin, "scope": scope, "alpha": alpha}
    try:
        chosen = best_of(chosen, claim.best_of)
        return TESTS[claim.test].judge(chosen, claim.outcome, **options, **claim.arguments)
    except NotTestable as reason:
        return undecided(str(reason))


def _unfit(claim: Claim, runs: pd.DataFrame) -> str:
    """Return why the runs of a claim's outcome cannot test it; "" if they can.

    What a claim measures counts only where a run has it. If no run has it at all, the test says so.
    """
    trained = runs[runs["variant"] != UNTRAINED] if "variant" in runs else runs
    metrics = [metric for metric in TESTS[claim.test].metrics(claim.arguments) if metric in trained]
    if reason := lacking(trained, claim.needs, claim.either) or varying(trained, claim.same):
        return reason
    for metric in metrics:
        measured = trained[trained[metric].notna()]
        reason = lacking(measured, claim.needs, claim.either) if len(measured) else ""
        if reason:
            return f"{reason} in runs with {metric}"
        if reason := not_comparable(measured, metric):
            return f"{metric}: {reason}"
    return ""


def judge_all(
    claims: Sequence[Claim], table: pd.DataFrame, *, margin: float = 1.0, scope: str = THESE, alpha: float = 0.05
) -> list[tuple[Claim, Verdict]]:
    """Judge each claim, in the same order, so that any false verdict among them has a probability of at most alpha.

    The claims that these runs can test share alpha equally (Bonferroni); those that they cannot test do not count.
    """
    judged = [(claim, judge(claim, table, margin=margin, scope=scope, alpha=alpha)) for claim in claims]
    tested = sum(verdict.tested for _, verdict in judged)
    if tested < 2:
        return judged
    return [
        (claim, judge(claim, table, margin=margin, scope=scope, alpha=alpha / tested) if first.tested else first)
        for claim, first in judged
    ]


def records(judged: Sequence[tuple[Claim, Verdict]]) -> list[Record]:
    """Return a record for each verdict, and its evidence as `claim evidence` with the claim in the note.

    A record without a claim has the number of claims that were tested (n), among which the level was divided.
    """
    tested = sum(verdict.tested for _, verdict in judged)
    note = "n claims that these runs can test; each is judged at 5 % / n (Bonferroni)"
    judgements = [Record(outcome="", analysis="claim", test=TESTED, groups=(), n=tested, note=note)] if judged else []
    for claim, verdict in judged:
        note = f"{verdict.verdict}: {verdict.reason}"
        judgements.append(
            Record(outcome=claim.outcome, analysis="claim", test=claim.test, groups=(claim.name,), note=note)
        )
        for record in verdict.evidence:
            note = f"{claim.name} ({record.analysis}): {record.note}"
            judgements.append(Record(**{**vars(record), "analysis": EVIDENCE, "note": note}))
    return judgements


def _condition(column: str, pattern: str) -> str:
    return f"source {join_names([pattern])}" if column == "source_language" else f"{column} {pattern}"
