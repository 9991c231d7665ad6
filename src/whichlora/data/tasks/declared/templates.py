"""Renders the prompts of declared tasks: Jinja templates in a sandbox."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, cache_size=0)
VARIABLES = ("labels", "language")
"""What a template may use besides the fields: the words of the labels, and the code of the item's language."""


def check_template(text: str, fields: Collection[str]) -> set[str]:
    """Return the fields that a template uses.

    Raises:
        ValueError: it is no template, or uses what is not a field.
    """
    try:
        used = variables(text)
        _compiled(text)
    except TemplateError as error:
        raise ValueError(f"is not a Jinja template: {error}") from error
    unknown = sorted(used.difference(fields, VARIABLES))
    if unknown:
        raise ValueError(f"uses {unknown[0]}; allowed are {', '.join([*fields, *VARIABLES])}")
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
    """Return a prompt, without white space at its end, since the answer begins there.

    Raises:
        ValueError: the template fails for these fields.
    """
    try:
        return _compiled(text).render(**fields, labels=list(labels), language=language).rstrip()
    except (TemplateError, TypeError, ArithmeticError, ValueError) as error:
        raise ValueError(f"the prompt cannot be rendered: {error}") from error


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(text)
