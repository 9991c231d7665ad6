"""Reads claims (statements with tests) and judges from the runs whether each is supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.claims.claim_tests import TESTS
from analysis.claims.verdicts import Verdict, undecided
from analysis.records import Record
from analysis.stats.contrasts import same_level
from analysis.stats.differences import THESE
from whichlora.errors import OptionError, did_you_mean

TESTED = "claims tested"
PACKAGED = Path(__file__).with_name("claims.yaml")
_REQUIRED = ("name", "says", "outcome", "test")
_KEYS = (*_REQUIRED, "arguments", "where", "source")


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
    path = path or PACKAGED
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError("claims", path, f"cannot be read: {error}") from None
    entries = content.get("claims") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise OptionError("claims", path, "must have a list under the key claims")
    claims = [_claim(path, number, entry) for number, entry in enumerate(entries, start=1)]
    names = [claim.name for claim in claims]
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        raise OptionError("claims", path, f"names must be unique; {duplicates[0]} occurs more than once")
    return claims


def judge(
    claim: Claim, table: pd.DataFrame, *, margin: float = 1.0, scope: str = THESE, alpha: float = 0.05
) -> Verdict:
    """Judge a claim by the runs in a table that match its `where`.

    `scope` is that of the primary analysis (see `differences`).
    """
    chosen = select(table, claim.where)
    if chosen.empty or not (chosen["outcome"] == claim.outcome).any():
        conditions = ", ".join(f"{key} {value}" for key, value in claim.where.items())
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
            judgements.append(Record(**{**vars(record), "analysis": "claim evidence", "note": note}))
    return judgements


def select(table: pd.DataFrame, where: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows whose columns match the patterns; none if a column is missing."""
    for column, pattern in where.items():
        if column not in table:
            return table.iloc[:0]
        table = table[[same_level(column, value, str(pattern)) for value in table[column]]]
    return table


def _claim(path: Path, number: int, entry: object) -> Claim:
    if not isinstance(entry, dict):
        raise OptionError("claims", path, f"entry {number} must be a mapping of {', '.join(_KEYS)}")
    name = entry.get("name", f"entry {number}")
    if missing := [key for key in _REQUIRED if not isinstance(entry.get(key), str)]:
        raise OptionError("claims", path, f"{name} lacks {', '.join(missing)} (required, as text)")
    for key in entry:
        if key not in _KEYS:
            raise OptionError(
                "claims", path, f"{name} has {key}; allowed are {', '.join(_KEYS)}{did_you_mean(key, _KEYS)}"
            )
    if entry["outcome"] not in ("en", "tl"):
        raise OptionError("claims", path, f"{name} has outcome {entry['outcome']}; allowed are en, tl")
    if entry["test"] not in TESTS:
        hint = did_you_mean(entry["test"], TESTS)
        raise OptionError("claims", path, f"{name} has test {entry['test']}; allowed are {', '.join(TESTS)}{hint}")
    for key in ("arguments", "where"):
        if not isinstance(entry.get(key, {}), dict):
            raise OptionError("claims", path, f"{name}: {key} must be a mapping")
    try:
        TESTS[entry["test"]].check(entry.get("arguments", {}))
    except ValueError as error:
        raise OptionError("claims", path, f"{name}: {error}") from None
    return Claim(**entry)
