"""The description of a comparison's run in the MLflow UI."""

from __future__ import annotations

import shlex

from comparing.answer import HEAD, Answer
from whichlora.tracking.markdown import code, escaped, paragraphs, table


def describe(answer: Answer, experiment: str) -> str:
    """Return the answer in Markdown, and how to go on."""
    rows = [[escaped(cell) for cell in row] for row in answer.rows]
    return paragraphs(
        f"**{escaped(answer.lead)}**",
        table(HEAD, rows) if rows else "",
        "\n".join(f"- {escaped(sentence)}" for sentence in answer.sentences),
        "The runs of the rounds are nested under this run; `answer.json` and `standings.csv` are among its artifacts.",
        code([f"whichlora analyze --experiment {shlex.quote(experiment)}"], "sh"),
    )
