"""What the report calls the roles of languages and the score: "German", "Turkish" and "macro F1", for example.

Outcomes are roles, `en` for the source language and `tl` for the target languages, whatever the languages are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import pandas as pd

from analysis.records import Record, find
from whichlora.config.spec import NO_SOURCE
from whichlora.data.language_names import join_names
from whichlora.data.metric_names import metric_name
from whichlora.data.targets import POOLED

ANALYSIS = "names"
OUTCOMES = ("en", "tl", "mean")
DEFAULT_SOURCE, DEFAULT_HEADLINE = "en", "f1"
"""What runs have that do not say it, as older ones and results from files."""


@dataclass(frozen=True)
class Names:
    """The names of one analysis.

    Attributes:
        source: of the outcome `en`; "the source language" if there are several.
        target: of the outcome `tl`; "the target language" if there are several.
        score: of the headline metric; "score" if there are several.
    """

    source: str = "English"
    target: str = "the target language"
    score: str = "F1"

    def of(self, outcome: str) -> str:
        """Return the name of an outcome within a sentence."""
        return {"en": self.source, "tl": self.target}.get(outcome, f"the mean of {self.source} and {self.target}")

    def short(self, outcome: str) -> str:
        """Return the name of an outcome for headings and columns: "target", say, for "the target language"."""
        name = {"en": self.source, "tl": self.target}.get(outcome, "mean of both")
        return name.removeprefix("the ").removesuffix(" language")

    def listed(self, outcomes: Sequence[str]) -> str:
        """Return the names of outcomes as "English / target language"."""
        return " / ".join(self.of(outcome).removeprefix("the ") for outcome in outcomes)

    def title(self, outcome: str) -> str:
        """Return the name of an outcome at the beginning of a line."""
        name = {"en": self.source, "tl": self.target}.get(outcome, "mean of both").removeprefix("the ")
        return name[:1].upper() + name[1:]

    def fill(self, text: str) -> str:
        """Return a text of the report with its placeholders {source}, {target} and {score} replaced.

        A placeholder in upper case, as {Source}, stands at the beginning of a sentence.
        """
        for field in fields(self):
            name = str(getattr(self, field.name))
            text = text.replace(f"{{{field.name}}}", name)
            text = text.replace(f"{{{field.name.capitalize()}}}", name[:1].upper() + name[1:])
        return text

    def records(self) -> list[Record]:
        """Return the names that are not the default ones as records, from which `names_in` restores them."""
        named = [(field.name, str(getattr(self, field.name)), field.default) for field in fields(self)]
        return [
            Record(outcome="", analysis=ANALYSIS, test=test, groups=(name,))
            for test, name, default in named
            if name != default
        ]


def names_in(records: Sequence[Record]) -> Names:
    """Return the names that an analysis has among its records."""
    return Names(**{record.test: record.groups[0] for record in find(records, analysis=ANALYSIS)})


def names_of(table: pd.DataFrame) -> Names:
    """Return the names for the results in a table, all of an analysis or those of a setting."""
    sources = _values(table, "source_language") - {NO_SOURCE} or {DEFAULT_SOURCE}
    headlines = _values(table, "headline") or {DEFAULT_HEADLINE}
    return Names(
        source=_only(map(join_names, ([code] for code in sources)), "the source language"),
        target=_only(map(_target_name, _targets(table)), Names.target),
        score=_only(map(metric_name, headlines), "score"),
    )


def legend(languages: Sequence[str]) -> str:
    """Return a sentence with the names of the languages that a table has as codes; "" for one language."""
    known = {code: name for code in languages if (name := _target_name(code)) != code}
    texts = [f"{code} is {name}" for code, name in known.items()]
    return f" {', '.join(texts)}." if len(languages) > 1 and texts else ""


def _targets(table: pd.DataFrame) -> set[str]:
    """Return the target languages as the runs say, else as their option `language` names them."""
    if "language" not in table:
        return set()
    names = table["language"]
    if "target_languages" in table:
        names = table["target_languages"].where(table["target_languages"].notna(), names).mask(names == "", "")
    return set(names.dropna().astype(str)) - {""}


def _target_name(language: str) -> str:
    return Names.target if language == POOLED else join_names(part.partition(":")[0] for part in language.split(","))


def _values(table: pd.DataFrame, column: str) -> set[str]:
    return set(table[column].dropna().astype(str)) - {""} if column in table else set()


def _only(names: Iterable[str], several: str) -> str:
    first, *others = {*names} or {several}
    return several if others else first
