"""Finds and loads variants that installed packages declare as entry points of the group `whichlora.variants`."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from whichlora.errors import OptionError
from whichlora.variants.base import Variant

GROUP = "whichlora.variants"


@dataclass(frozen=True)
class Distribution:
    """An installed package by name and version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache
def declarations() -> dict[str, list[EntryPoint]]:
    """Return the entry points by variant name, from package metadata: no package is imported."""
    result: dict[str, list[EntryPoint]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, str(distribution_of(entry)))):
        result.setdefault(entry.name, []).append(entry)
    return result


def distribution_of(entry: EntryPoint) -> Distribution:
    """Return the package that declares an entry point."""
    assert entry.dist is not None
    return Distribution(entry.dist.name, entry.dist.version)


def load(name: str) -> Variant:
    """Import the package that declares the variant named `name` and return the variant.

    Raises:
        OptionError: several packages declare the name, the declaration cannot be loaded, it is not a `Variant`, or the
            variant has another name.
    """
    entry, *others = declarations()[name]
    declared = f"{entry.value} of {distribution_of(entry)}"
    if others:
        packages = " and ".join(str(distribution_of(one)) for one in (entry, *others))
        raise OptionError("variant", name, f"is declared by {packages}; uninstall all but one")
    try:
        variant = entry.load()
    except Exception as error:  # importing a package runs code that may raise anything
        raise OptionError("variant", name, f"{declared} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(variant, Variant):
        raise OptionError("variant", name, f"{declared} is not a Variant but of type {type(variant).__name__}")
    if variant.name != name:
        raise OptionError("variant", name, f"{declared} is called {variant.name}; the entry point must have that name")
    return variant
