"""Renders the prompts and choices of declared tasks: Jinja templates in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from whichlora.errors import did_you_mean, first_line

MAX_CHARACTERS = 10_000_000
"""Maximum length of a text that an operator of a template makes, such as `"a" * n`."""
_NOT_OFFERED = {"filters": ("random", "center", "format"), "globals": ("lipsum",)}
"""What makes texts that differ from one rendering to the next, or of any length."""


@pass_context
def _uncapitalize(context: Context, text: str) -> str:
    """Return a text as the continuation of a sentence: its first letter in lower case, by the rules of the language.

    The English pronoun I stays, as does a word whose second letter is upper case too, such as TV. Names are not
    recognised.
    """
    language = context.get("language")
    if text[1:2].isupper() or (language == "en" and re.match(r"I\b", text)):
        return text
    dotted = {"I": "ı", "İ": "i"} if language in ("tr", "az") else {}
    return dotted.get(text[:1], text[:1].lower()) + text[1:]


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, whose operators also make no enormous number or text."""

    intercepted_binops = frozenset(("**", "*", "%"))

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0)
        for kind, names in _NOT_OFFERED.items():
            for name in names:
                del getattr(self, kind)[name]
        self.filters["uncapitalize"] = _uncapitalize

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"the operator {operator} is not allowed here")
        if operator == "*":
            sizes = [len(value) if isinstance(value, str | list | tuple) else value for value in (left, right)]
            if all(isinstance(size, int) for size in sizes) and abs(sizes[0] * sizes[1]) > MAX_CHARACTERS:
                raise SecurityError("the product is too large")
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Environment()
VARIABLES = ("labels", "language")
"""What a template may use besides the fields: the words of the labels, and the code of the item's language."""


def check_template(text: str, fields: Collection[str], others: Collection[str]) -> set[str]:
    """Return the fields that a template uses; `others` are the variables that it may use besides.

    Raises:
        ValueError: it is no template, or uses what is not a field.
    """
    try:
        used = variables(text)
        _compiled(text)
    except TemplateError as error:
        raise ValueError(f"is not a Jinja template: {_shown(error)}") from error
    if any(map(_ENVIRONMENT.parse(text).find, (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends))):
        raise ValueError("may not include, import or extend another template")
    unknown = sorted(used.difference(fields, others))
    if unknown:
        allowed = [*fields, *others]
        raise ValueError(f"uses {unknown[0]}; allowed are {', '.join(allowed)}{did_you_mean(unknown[0], allowed)}")
    try:
        _compiled(text).render(dict.fromkeys([*fields, "language"], "text"), labels=["one", "two"])
    except (SecurityError, OverflowError, RecursionError) as error:
        raise ValueError(f"cannot be rendered: {_shown(error)}") from error
    except Exception:  # the texts of items may be of the form that it expects
        pass
    return set(used.intersection(fields))


@lru_cache(maxsize=64)
def variables(text: str) -> frozenset[str]:
    """Return the names that a template uses."""
    return frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(text)))


@lru_cache(maxsize=64)
def needed_fields(text: str) -> frozenset[str]:
    """Return the variables of a template that may not be empty: those that no condition such as `{% if x %}` tests."""
    tree = _ENVIRONMENT.parse(text)
    tests = [node.test for node in tree.find_all(nodes.If)] + [node.test for node in tree.find_all(nodes.CondExpr)]
    tested = {
        name.name for test in tests for name in (test, *test.find_all(nodes.Name)) if isinstance(name, nodes.Name)
    }
    return frozenset(meta.find_undeclared_variables(tree) - tested)


def render(text: str, fields: Mapping[str, str], *, labels: Sequence[str], language: str) -> str:
    """Return a text, without white space at its end, since after a prompt the answer begins there.

    Raises:
        ValueError: the template fails for these fields.
    """
    try:
        return _compiled(text).render(**fields, labels=list(labels), language=language).rstrip()
    except Exception as error:  # the template's own code may raise anything
        raise ValueError(f"cannot be rendered: {_shown(error)}") from error


def _shown(error: Exception) -> str:
    return first_line(error).rstrip(".")


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)
