"""Reads the answers that the command `compare` has stored, which the report shows first."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow.entities import Run

ANSWER = "answer.json"


class ComparisonAnswer(NamedTuple):
    """The answer of a comparison in rounds of seeds.

    Attributes:
        lead: which method to take, in a sentence.
        sentences: what supports it.
        head, rows: the table of the methods, the leader first.
    """

    lead: str
    sentences: tuple[str, ...]
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def fetch(runs: Iterable[Run]) -> list[ComparisonAnswer]:
    """Return the answers of comparisons, the newest first; one that was stopped before its first round has none."""
    newest = sorted(runs, key=lambda run: (-run.info.start_time, run.info.run_id))
    return [answer for run in newest if (answer := _read(run)) is not None]


def _read(run: Run) -> ComparisonAnswer | None:
    # Not from the cache of artifacts: an answer changes until the comparison has ended.
    try:
        content: dict[str, Any] = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{ANSWER}"))
        return ComparisonAnswer(
            lead=str(content["lead"]),
            sentences=tuple(map(str, content["sentences"])),
            head=tuple(map(str, content["head"])),
            rows=tuple(tuple(map(str, row)) for row in content["rows"]),
        )
    except (MlflowException, OSError, ValueError, KeyError, TypeError):
        return None
