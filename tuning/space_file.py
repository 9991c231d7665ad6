"""Checks the dimensions in a YAML file of the option `space`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from tuning.dimensions import Choice, Dimension, Range
from whichlora.config.options import RUN_OPTIONS, parse_option
from whichlora.config.variant_options import check_setting
from whichlora.errors import OptionError
from whichlora.variants import Variant
from whichlora.yaml_files import Document, Path_


class _Ends(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    low: int | float
    high: int | float


def read_dimension(document: Document, path: Path_, variant: Variant) -> Dimension:
    """Return the dimension of a variant at a place of a file: a list of values, or {low: ..., high: ...}.

    Raises:
        OptionError: it is neither, or a value is not allowed; the message names the line.
    """
    value: Any = document.content
    for key in path:
        value = value[key]
    name = str(path[-1])
    if isinstance(value, list) and value:
        return Choice(values=_values(document, path, variant, value))
    if isinstance(value, dict) and name != "target_modules":
        try:
            ends = _Ends.model_validate(value)
        except ValidationError:
            _fail(document, path)
        low, high = _values(document, path, variant, [ends.low, ends.high])
        if (low, high) == (ends.low, ends.high) and low < high:
            return Range(low=low, high=high)
    _fail(document, path)


def _values(document: Document, path: Path_, variant: Variant, listed: Sequence[Any]) -> tuple[Any, ...]:
    """Return checked values, numbers in ascending order."""
    name, kind = str(path[-1]), str if path[-1] == "target_modules" else int | float
    if any(isinstance(value, bool) or not isinstance(value, kind) for value in listed):
        _fail(document, path)
    if kind is not str and min(listed) <= 0:
        _fail(document, path)
    values = []
    for index, value in enumerate(listed):
        try:
            checked = parse_option(name, str(value)) if name in RUN_OPTIONS else check_setting(variant, name, value)
        except OptionError as error:
            document.fail((*path, index), str(error))
        values.append(checked)
    return tuple(values if kind is str else sorted(values))


def _fail(document: Document, path: Path_) -> NoReturn:
    name = str(path[-1])
    if name == "target_modules":
        document.fail(path, f"{name} must be a list of texts, such as all-linear")
    numbers = "positive whole numbers" if name in ("rank", "epochs") else "positive numbers"
    document.fail(path, f"{name} must be a list of {numbers} or {{low: ..., high: ...}}, low above 0")
