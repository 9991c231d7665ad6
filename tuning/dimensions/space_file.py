"""Checks the dimensions in a YAML file of the option `space`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, ValidationError

from tuning.dimensions.kinds import Choice, Dimension, Range, is_log
from whichlora.config.options import RUN_OPTIONS, parse_option
from whichlora.config.variant_options import check_setting
from whichlora.errors import OptionError
from whichlora.variants import Variant
from whichlora.yaml_files import Document, Path_

_TEXTS = {"target_modules": "all-linear", "scheduler": "cosine"}
"""Options whose values are texts, with an example."""
_FROM_ZERO = ("warmup", "weight_decay", "dropout")
"""Options that may be 0."""


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
        return Choice(values=_values(document, path, variant, value, texts=name in (*_TEXTS, "alpha")))
    if isinstance(value, dict) and name not in _TEXTS:
        try:
            ends = _Ends.model_validate(value)
        except ValidationError:
            _fail(document, path)
        low, high = _values(document, path, variant, [ends.low, ends.high], texts=False)
        if (low, high) == (ends.low, ends.high) and low < high:
            return Range(low=low, high=high, log=is_log(name, low))
    _fail(document, path)


def _values(
    document: Document, path: Path_, variant: Variant, listed: Sequence[Any], *, texts: bool
) -> tuple[Any, ...]:
    """Return checked values, numbers in ascending order; `texts` says whether some may be texts, such as a rule."""
    name = str(path[-1])
    kinds = () if name in _TEXTS else (int, float)
    if any(isinstance(value, bool) or not isinstance(value, (*kinds, *[str] * texts)) for value in listed):
        _fail(document, path)
    numbers = [value for value in listed if not isinstance(value, str)]
    if numbers and (min(numbers) < 0 or (min(numbers) == 0 and name not in _FROM_ZERO)):
        _fail(document, path)
    values = []
    for index, value in enumerate(listed):
        try:
            checked = parse_option(name, str(value)) if name in RUN_OPTIONS else check_setting(variant, name, value)
        except OptionError as error:
            document.fail((*path, index), str(error))
        values.append(checked)
    return tuple(values if any(isinstance(value, str) for value in values) else sorted(values))


def _fail(document: Document, path: Path_) -> NoReturn:
    name = str(path[-1])
    if name in _TEXTS:
        document.fail(path, f"{name} must be a list of texts, such as {_TEXTS[name]}")
    numbers = "positive whole numbers" if name in ("rank", "epochs", "batch_size") else "positive numbers"
    low = "low above 0"
    if name in _FROM_ZERO:
        numbers, low = "numbers from 0", "low at least 0"
    rules = " and rules such as 2*rank" if name == "alpha" else ""
    document.fail(path, f"{name} must be a list of {numbers}{rules} or {{low: ..., high: ...}}, {low}")
