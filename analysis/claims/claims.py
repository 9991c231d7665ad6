"""Reads claims (statements with tests) and judges from the runs whether each is supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, Field

from analysis.claims.claim_tests import TESTS
from analysis.claims.verdicts import Verdict, undecided
from analysis.naming import DEFAULT_SOURCE
from analysis.records import Record
from analysis.stats.contrasts import same_level
from analysis.stats.differences import THESE
from whichlora.data.language_names import join_names
from whichlora.errors import did_you_mean
from whichlora.yaml_files import Section, read_document

TESTED, EVIDENCE = "claims tested", "claim evidence"
PACKAGED = Path(__file__).with_name("claims.yaml")


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
    test: Annotated[str, AfterValidator(_check_test)]
    arguments: dict[str, Any] = Field(default_factory=dict)
    where: dict[str, str | int | float] = Field(default_factory=dict)
    source: str = ""


class _ClaimsFile(Section):
    claims: list[_Entry]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement and its test; `claims.yaml` documents the fields."""

    name: str
    says: str
    outcome: str
    test: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


def load(path: Path | None = None) -> list[Claim]:
    """Read a file of claims, by default those of the paper.

    Raises:
        OptionError: the file is missing or malformed; the message names the claim and what is allowed.
    """
    document = read_document("claims", path or PACKAGED)
    content = document.content
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        document.fail((), "must have a list under the key claims")
    entries = document.parse(_ClaimsFile).claims
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        if entry.name in seen:
            document.fail(("claims", index), f"names must be unique; {entry.name} occurs more than once")
        seen.add(entry.name)
        arguments = "claims", index, "arguments"
        try:
            TESTS[entry.test].check(entry.arguments)
        except TypeError:  # the type of an argument is wrong
            pass
        except ValueError as error:
            document.fail(arguments, f"{entry.name}: {error}")
        document.parse(TESTS[entry.test].argument_types(), arguments)
    return [Claim(**dict(entry)) for entry in entries]


def judge(
    claim: Claim, table: pd.DataFrame, *, margin: float = 1.0, scope: str = THESE, alpha: float = 0.05
) -> Verdict:
    """Judge a claim by the runs in a table that match its `where`.

    `scope` is that of the primary analysis (see `differences`).
    """
    chosen = select(table, claim.where)
    if chosen.empty or not (chosen["outcome"] == claim.outcome).any():
        conditions = ", ".join(_condition(key, str(value)) for key, value in claim.where.items())
        return undecided(f"there are no runs{f' with {conditions}' * bool(conditions)}")
    options = {"margin": margin, "scope": scope, "alpha": alpha}
    return TESTS[claim.test].judge(chosen, claim.outcome, **options, **claim.arguments)


def judge_all(
    claims: Sequence[Claim], table: pd.DataFrame, *, margin: float = 1.0, scope: str = THESE, alpha: float = 0.05
) -> list[tuple[Claim, Verdict]]:
    """Judge each claim, in the same order, so that any false verdict among them has a probability of at most alpha.

    The claims that these runs can test share alpha equally (Bonferroni); those that they cannot test do not count.
    """
    judged = [(claim, judge(claim, table, margin=margin, scope=scope, alpha=alpha)) for claim in claims]
    tested = [(claim, verdict) for claim, verdict in judged if verdict.tested]
    if len(tested) < 2:
        return judged
    options = {"margin": margin, "alpha": alpha / len(tested)}
    again = {claim.name: judge(claim, table, scope=scope, **options) for claim, _ in tested}
    return [(claim, again.get(claim.name, verdict)) for claim, verdict in judged]


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


def select(table: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows whose columns match the patterns; none if a column is missing. The source language is English
    where a table does not say it.
    """
    if "source_language" not in table:
        table = table.assign(source_language=DEFAULT_SOURCE)
    for column, pattern in where.items():
        if column not in table:
            return table.iloc[:0]
        table = table[[same_level(column, value, str(pattern)) for value in table[column]]]
    return table


def _condition(column: str, pattern: str) -> str:
    return f"source {join_names([pattern])}" if column == "source_language" else f"{column} {pattern}"
