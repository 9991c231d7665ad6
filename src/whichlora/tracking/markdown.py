"""Writes descriptions in Markdown, in which names and texts of data, models and users change nothing but themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTE_LIMIT = 8000
"""Characters of a description that MLflow stores of a run."""
_SPECIAL = re.compile(r"[\\`*_{}\[\]()#+~<>&|!$:@=^]|^-|(?<=\d)\.(?=\s)|(?<=www)\.", re.IGNORECASE)


def escaped(text: object) -> str:
    """Return a text as Markdown that shows it as it is, in one line.

    Special characters become HTML entities, which also hold in cells of tables and where a renderer turns addresses
    into links.
    """
    line = " ".join(str(text).split())
    line = "".join(c for c in line if c.isprintable())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown, so names in them must be escaped.

    The MLflow UI leaves no space between columns, so the cells begin with one.
    """
    lines = ["| --- " * len(head) + "|"]
    head_line, *others = [f"| {' | &emsp;'.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([head_line, *lines, *others])


def code(lines: Iterable[str], language: str = "") -> str:
    """Return lines as a block of code; a line break within one becomes a space."""
    return "\n".join([f"```{language}", *(" ".join(line.splitlines()) for line in lines), "```"])


def paragraphs(*parts: str) -> str:
    """Join the parts of a description that are not empty, with blank lines between them."""
    return "\n\n".join(part for part in parts if part)


def link(text: str, address: str) -> str:
    """Return a link with an escaped text; an address that begins with `#` is that of another page of the MLflow UI."""
    return f"[{escaped(text)}]({address})"


def run_address(experiment_id: str, run_id: str) -> str:
    """Return the address of a run's page relative to any page of the MLflow UI.

    Without the workflow in it the UI would show the pages for the development of agents around it.
    """
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"
