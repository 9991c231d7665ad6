"""The schema of a declared task: what a YAML file may say about its data, prompts, labels and scores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from whichlora.data.tasks.declared.layouts import PLACEHOLDERS, Data, filled
from whichlora.data.tasks.declared.sections import About, Answer, Sizes_, Text
from whichlora.data.tasks.declared.spelling import SYNONYMS, in_one_spelling
from whichlora.data.tasks.declared.templates import needed_fields, variables
from whichlora.errors import PlacedError, did_you_mean
from whichlora.yaml_files import Path_, Section

Kind = Literal["choice", "span", "text"]
METRICS: dict[str, tuple[str, ...]] = {
    "choice": ("f1", "accuracy", "macro_f1"),
    "span": ("f1", "exact_match"),
    "text": ("f1", "exact_match", "chrf", "rouge_l"),
}
"""The metrics of each kind; without `metrics` the first is the headline."""
NOT_IN_PROMPT = ("id", "answer", "answers", "messages")
"""Fields that a template cannot use."""
FIELDS: dict[str, tuple[str, ...]] = {"choice": ("answer",), "span": ("context", "question", "answers"), "text": ()}
"""The fields that each kind requires; a text task requires `output`, which may be named `answer`, or `messages`."""


class Declaration(Section):
    """A task as declared in a YAML file.

    Attributes:
        task: its name in runs and tables.
        languages: codes, or codes with their names in the data.
        source: the language that is transferred from; None for a study in one language.
        pooled: the target languages that `language=pooled` stands for; all by default.
        parallel: whether the n-th items of all languages are translations of each other.
        where: conditions on columns, such as the language in a file that has all.
        id_prefix: how the ids of a language's items begin in a file that has all.
        fields: the column of each field of an item, by name, or counted from 1 in a file without a header; a dot leads
            into nested values, columns joined by ` + ` are one value, and placeholders stand for the language.
        labels: by value in the data, the word with which the model answers, or one per language. Values with the same
            word are one label, which has the name of the first.
        choices: instead of labels, for answers that are texts of the item: by value in the data, the Jinja template of
            the text.
        control_without: fields of the prompt that are left empty in the control of such choices, as the premise.
        prompt: Jinja template, or one per language; it ends where the answer begins.
        group: field or column whose values may not be divided between training and validation.
        stratify: field or column over which training and validation items are balanced, besides the label.
        held_out: how much of the training items is held out for validation where there is no such split: a share, or a
            number.
        test_share: how much of data without splits becomes the test set; at most a third.
        on_bad: whether an item that cannot be used is an error or left out.
        deduplicate: whether repeated items are left out.
    """

    task: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$")]
    kind: Kind
    languages: list[Text] | dict[str, Text]
    source: Text | None = None
    pooled: list[Text] | None = None
    parallel: bool = False
    data: Annotated[
        Annotated[Data, Tag("one")] | Annotated[list[Data], Tag("several")],
        Discriminator(lambda value: "several" if isinstance(value, list) else "one"),
    ]
    where: dict[str, Text] = Field(default_factory=dict)
    id_prefix: Text | None = None
    fields: dict[str, Text | int]
    labels: dict[str, Text | dict[str, Text]] | list[Text] | None = None
    choices: dict[str, Text] | None = None
    control_without: list[Text] = Field(default_factory=list)
    prompt: Text | dict[str, Text] | None = None
    group: Text | None = None
    stratify: Text | None = None
    held_out: float | int = 0.1
    test_share: Annotated[float, Field(gt=0, le=0.34)] = 0.3
    on_bad: Literal["fail", "skip"] = "fail"
    deduplicate: bool = False
    chat_template: Text = "auto"
    metrics: list[str] = Field(default_factory=list)
    answer: Answer = Answer()
    sizes: Sizes_ = Sizes_()
    about: About = About()

    @model_validator(mode="before")
    @classmethod
    def _spell_alike(cls, content: Any) -> Any:
        return in_one_spelling(content) if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _check(self) -> Declaration:
        self._check_languages()
        self._check_fields()
        self._check_labels()
        if not 0 < self.held_out < 1 and not (isinstance(self.held_out, int) and self.held_out >= 1):
            raise PlacedError(("held_out",), "held_out must be a share between 0 and 1, or a number of items")
        allowed = METRICS[self.kind]
        for n, metric in enumerate(self.metrics):
            if metric not in allowed:
                problem = f"metrics has {metric}; allowed for {self.kind} are {', '.join(allowed)}"
                raise PlacedError(("metrics", n), problem + did_you_mean(metric, [*allowed, *SYNONYMS]))
        if self.prompt is None and self.kind != "span" and "messages" not in self.fields:
            raise ValueError(f"lacks prompt, which a task of kind {self.kind} needs")
        return self

    def _check_languages(self) -> None:
        codes = self.codes
        if not codes or len(set(codes)) < len(codes):
            raise PlacedError(("languages",), "languages must be one or several different codes")
        named: list[tuple[Path_, str]] = [(("source",), self.source)] if self.source else []
        named += [(("pooled", n), code) for n, code in enumerate(self.pooled or [])]
        by_language: dict[Path_, Any] = {("prompt",): self.prompt}
        by_language |= {("labels", value): words for value, words in self.words.items()}
        for path, texts in by_language.items():
            named += [((*path, code), code) for code in (texts if isinstance(texts, dict) else ())]
        for path, code in named:
            if code not in codes:
                problem = f"{path[0]} has {code}; allowed are {', '.join(codes)}{did_you_mean(code, codes)}"
                raise PlacedError(path, problem)
        if self.source and len(codes) == 1:
            problem = f"languages has {self.source} alone; leave out source for a study in one language"
            raise PlacedError(("languages",), problem)
        for path, texts in by_language.items():
            if isinstance(texts, dict) and (missing := [code for code in codes if code not in texts]):
                raise PlacedError(path, f"{' '.join(map(str, path))} lacks {missing[0]}, which languages has")

    def _check_fields(self) -> None:
        for data in self.layouts:
            fields = data.fields or self.fields
            missing = [name for name in (*FIELDS[self.kind], *self.fields) if name not in fields and name != "id"]
            if self.kind == "text" and not {"answer", "messages"} & fields.keys():
                missing = ["output"]
            if missing:
                listed = f"; it has {', '.join(fields)}{did_you_mean(missing[0], fields)}" if fields else ""
                problem = f"fields lacks {missing[0]}, which a task of kind {self.kind} needs{listed}"
                raise PlacedError(("fields",), problem)
            by_number = [isinstance(column, int) for column in fields.values()]
            if any(by_number) and not all(by_number):
                problem = "fields has both names and numbers; numbers are for a file without a header"
                raise PlacedError(("fields",), problem)
            if any(isinstance(column, int) and column < 1 for column in fields.values()):
                raise PlacedError(("fields",), "fields counts columns from 1")
            if self.id_prefix_of(data) and "id" not in fields:
                raise PlacedError(("fields",), "fields lacks id, which id_prefix needs")
            for name, column in fields.items():
                _check_placeholders(("fields", name), str(column))
            self._check_splits(data)
        _check_placeholders(("id_prefix",), self.id_prefix or "")
        for column, pattern in self.where.items():
            _check_placeholders(("where", column), pattern)

    def _check_splits(self, data: Data) -> None:
        conditions = " ".join(self.where_of(data).values())
        patterns = [
            pattern for pattern in (data.train, data.validation, data.test) if pattern and "{split}" not in pattern
        ]
        if len(set(patterns)) < len(patterns) and "{split}" not in conditions:
            problem = "data has one file for two splits; say in where which rows are in which"
            raise PlacedError(("data",), f"{problem} (COLUMN: '{{split}}'), or use all")

    def _check_labels(self) -> None:
        given = [key for key in ("labels", "choices") if getattr(self, key) is not None]
        if not given and self.kind == "choice":
            raise ValueError("lacks labels or choices, of which a task of kind choice needs one")
        if given and self.kind != "choice":
            raise PlacedError((given[0],), f"has {given[0]}, but the kind is {self.kind}")
        if len(given) > 1:
            raise PlacedError(("choices",), "has labels and choices; allowed is one of them")
        if given and len(self.label_names) < 2:
            raise PlacedError((given[0],), f"{given[0]} must be at least two")
        if self.control_without and not self.choices:
            raise PlacedError(("control_without",), "has control_without, which needs choices")

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all languages."""
        return tuple(self.languages)

    @property
    def layouts(self) -> list[Data]:
        """The layouts in which the data may be, in the order in which they are tried."""
        return self.data if isinstance(self.data, list) else [self.data]

    @property
    def reference(self) -> str:
        """The language whose order of items the others follow: the source, or the first."""
        return self.source or self.codes[0]

    def fields_of(self, layout: Data) -> dict[str, str | int]:
        """Return the column of each field in a layout."""
        return self.fields if layout.fields is None else layout.fields

    def where_of(self, layout: Data) -> dict[str, str]:
        """Return the conditions on columns in a layout."""
        return self.where if layout.where is None else layout.where

    def id_prefix_of(self, layout: Data) -> str | None:
        """Return how ids of a language begin in a layout, if that decides."""
        return self.id_prefix if layout.id_prefix is None else layout.id_prefix

    def columns_of(self, layout: Data) -> list[str | int]:
        """Return all columns that a layout should have."""
        fields = self.fields_of(layout)
        others = [name for name in (self.group, self.stratify) if name is not None and name not in fields]
        return [*fields.values(), *self.where_of(layout), *others]

    @property
    def scores(self) -> tuple[str, ...]:
        """The metrics that are reported besides `f1`: by default all of the kind. The first is the headline."""
        return tuple(self.metrics) or METRICS[self.kind]

    @property
    def words(self) -> dict[str, str | dict[str, str]]:
        """The answer of each label, or one per language, or the template of a choice, by value in the data."""
        labels = self.choices or self.labels or {}
        return {value: value for value in labels} if isinstance(labels, list) else dict(labels)

    @property
    def label_names(self) -> dict[str, str]:
        """The label of each value in the data."""
        first: dict[str, str] = {}
        return {value: first.setdefault(json.dumps(word), value) for value, word in self.words.items()}

    def prompted(self, fields: Collection[str]) -> set[str]:
        """Return which of the fields of an item are in a prompt or a choice; all if there is no template."""
        return set(fields) if self.prompt is None else set(fields) & (_used(self.prompt) | _used(self.choices))

    @property
    def needed(self) -> frozenset[str]:
        """The fields whose texts may not be empty."""
        if self.kind == "span":
            return frozenset(("context", "question"))
        return frozenset().union(*map(needed_fields, [*_each(self.prompt), *_each(self.choices)]))

    def name_in_data(self, language: str) -> str:
        """Return the name that the data gives to a language."""
        return self.languages[language] if isinstance(self.languages, dict) else language

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a result and is in neither the items' texts nor their order."""
        without = {
            "data",
            "where",
            "id_prefix",
            "fields",
            "about",
            "group",
            "stratify",
            "held_out",
            "test_share",
            "on_bad",
            "deduplicate",
            "sizes",
            "chat_template",  # its text is in the spec
        }
        without |= {key for key in ("choices", "control_without") if not getattr(self, key)}
        values = self.model_dump(mode="json", exclude=without)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _each(templates: str | dict[str, str] | None) -> list[str]:
    """Return one template, or those by language or by label, as a list."""
    return list(templates.values()) if isinstance(templates, dict) else [templates] if templates else []


def _used(templates: str | dict[str, str] | None) -> frozenset[str]:
    """Return the names that templates use."""
    return frozenset().union(*map(variables, _each(templates)))


def _check_placeholders(path: Path_, pattern: str) -> None:
    try:
        filled(pattern, dict.fromkeys(PLACEHOLDERS, ""))
    except ValueError as error:
        raise PlacedError(path, f"{path[0]}: {error}") from error
