"""Checks a variant's own settings, which experiments set under `options` and search spaces by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from whichlora.errors import OptionError, check_choice
from whichlora.variants import Variant


def resolve_settings(variant: Variant, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variant's own settings with overrides applied.

    Raises:
        OptionError: the variant has no such setting, or the value has another type or is out of range.
    """
    return {**variant.options, **{name: check_setting(variant, name, value) for name, value in overrides.items()}}


def check_setting(variant: Variant, name: str, value: Any) -> Any:
    """Return the value of a setting, in one form for equal fingerprints.

    A whole number in the place of a float becomes one, and a list of texts in the place of a text is joined by commas.

    Raises:
        OptionError: the variant has no such setting, or the value has another type or is out of range.
    """
    default = variant.options[check_choice("options", name, variant.options)]
    if isinstance(default, bool) or not isinstance(default, int | float):
        if isinstance(default, str) and isinstance(value, list | tuple) and value and _has_type_of(value, [default]):
            return ",".join(value)
        if not _has_type_of(value, default):
            raise OptionError("options", f"{name}={value}", f"must be {_description(default)}")
        return value
    low, high = variant.option_ranges.get(name, (-math.inf, math.inf))
    whole = isinstance(default, int) and not isinstance(low, float)
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not (is_number and math.isfinite(value) and low <= value <= high):
        bounds = f" from {low:g} to {high:g}" if name in variant.option_ranges else ""
        raise OptionError("options", f"{name}={value}", f"must be a {'whole ' * whole}number{bounds}")
    return float(value) if isinstance(default, float) else value


def _has_type_of(value: Any, default: Any) -> bool:
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(_has_type_of(v, d) for v in value for d in default[:1])
    return default is None or type(value) is type(default)


def _description(default: Any) -> str:
    if isinstance(default, list | tuple):
        return "a list of texts" if all(isinstance(entry, str) for entry in default) else "a list"
    return {bool: "true or false", str: "text", dict: "a mapping"}.get(type(default), type(default).__name__)
