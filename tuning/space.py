"""Builds search spaces: the variant's space, restricted to what fits the model, with the user's overrides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from whichlora.caller import given_path
from whichlora.config.hyperparameters import adapted_shapes, arm_hyperparameters, resolve_modules
from whichlora.errors import OptionError, check_choice, did_you_mean
from whichlora.models.loading import ModelShape
from whichlora.variants import Hyperparameters, Variant, variant_names

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import BaseTrial

KINDS = ("paper", "continuous")
SEARCHED = ("learning_rate", "rank", "alpha", "epochs", "target_modules")
"""Options of a run that a study can search; an option that the user sets is not searched."""
_EDGE = 0.02
"""An optimum within this fraction of a range's width, on the log scale, counts as on its edge."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A list of values; numbers are in ascending order."""

    values: tuple[Any, ...]

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        return trial.suggest_categorical(name, self.values)

    def edge(self, value: Any) -> str | None:
        """Return the end of three or more numbers that a value is at: "lower", "upper" or None."""
        if isinstance(value, str) or len(self.values) < 3:
            return None
        return {0: "lower", len(self.values) - 1: "upper"}.get(self.values.index(value))

    @property
    def lowest(self) -> Any:
        """The first value."""
        return self.values[0]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def to_json(self) -> Any:
        """Return the values for JSON."""
        return list(self.values)


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from `low` to `high` on a log scale; integers if both ends are `int`."""

    low: float
    high: float

    def suggest(self, name: str, trial: BaseTrial) -> Any:
        """Let a trial suggest a value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=True)
        return trial.suggest_float(name, self.low, self.high, log=True)

    def edge(self, value: Any) -> str | None:
        """Return the end of the range that a value is near: "lower", "upper" or None."""
        position = math.log(value / self.low) / math.log(self.high / self.low)
        return "lower" if position <= _EDGE else "upper" if position >= 1 - _EDGE else None

    @property
    def lowest(self) -> Any:
        """The lower end."""
        return self.low

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def to_json(self) -> Any:
        """Return the range for JSON."""
        return {"low": self.low, "high": self.high}


Dimension = Choice | Range


@dataclass(frozen=True, kw_only=True)
class Space:
    """The dimensions of a study, by name of the run's or the variant's option."""

    dimensions: Mapping[str, Dimension]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Let a trial suggest a value for every dimension."""
        return {name: dimension.suggest(name, trial) for name, dimension in self.dimensions.items()}

    def lowest(self) -> dict[str, Any]:
        """Return the point with the lowest value of every dimension."""
        return {name: dimension.lowest for name, dimension in self.dimensions.items()}

    def __contains__(self, point: Mapping[str, Any]) -> bool:
        return all(point[name] in dimension for name, dimension in self.dimensions.items())

    def edges(self, point: Mapping[str, Any]) -> dict[str, str]:
        """Return "lower" or "upper" by dimension in which a point is on an edge, so that the optimum is undecided."""
        inside = {name: dimension for name, dimension in self.dimensions.items() if point[name] in dimension}
        ends = {name: dimension.edge(point[name]) for name, dimension in inside.items()}
        return {name: end for name, end in ends.items() if end}

    def to_json(self) -> dict[str, Any]:
        """Return the dimensions for JSON, sorted by name."""
        return {name: dimension.to_json() for name, dimension in sorted(self.dimensions.items())}


def build_space(
    variant: Variant, shape: ModelShape, *, fixed: Sequence[str], kind: str, overrides: Mapping[str, Any]
) -> Space:
    """Return the search space of a variant on a model.

    Ranks that do not fit the model's layers and modules that it lacks are dropped; the recommended and the matched
    values are always included.

    Args:
        fixed: options that the user set, which are not searched.
        kind: "paper", the grid of the paper's Appendix D, or "continuous", in which numbers range over a log scale
            between the ends of the grid. A rank that must divide the layers' widths remains a list.
        overrides: the user's lists and ranges by dimension, which replace the variant's.
    """
    space = variant.space
    values: dict[str, Sequence[Any]] = {
        "learning_rate": space.learning_rate,
        "rank": space.rank,
        "alpha": space.alpha,
        "epochs": space.epochs,
        "target_modules": [_module_text(modules) for modules in space.target_modules],
        **space.options,
    }
    known = known_points(variant, shape)
    dimensions: dict[str, Dimension] = {}
    for name in _dimension_names(variant):
        listed = values[name]
        if name in fixed or not (listed or name in overrides):
            continue
        if name in overrides:
            _check_override(name, overrides[name], variant, shape)
            dimensions[name] = overrides[name]
            continue
        added = [point[name] for point in known.values() if point.get(name) is not None]
        usable = [value for value in dict.fromkeys([*listed, *added]) if fits(name, value, variant, shape)]
        numbers = all(not isinstance(value, str) for value in usable)
        ordered = tuple(sorted(usable)) if numbers else tuple(usable)
        can_be_continuous = name in ("learning_rate", "alpha") or (name == "rank" and variant.check_rank is None)
        if kind == "continuous" and can_be_continuous and len(ordered) > 1:
            ends = (ordered[0], ordered[-1]) if name == "rank" else (float(ordered[0]), float(ordered[-1]))
            dimensions[name] = Range(low=ends[0], high=ends[1])
        else:
            dimensions[name] = Choice(values=ordered)
    return Space(dimensions=dimensions)


def describe_point(point: Mapping[str, Any]) -> str:
    """Format a point for display."""
    return ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in point.items())


def known_points(variant: Variant, shape: ModelShape) -> dict[str, dict[str, Any]]:
    """Return the points that a study tries first: "recommended", and "matched" if its learning rate is known."""
    recommended = variant.recommended
    assert recommended is not None
    points = {"recommended": _point(variant, recommended, shape)}
    if variant.matched_learning_rate is not None:
        matched = arm_hyperparameters(variant, "matched")
        assert matched is not None
        points["matched"] = _point(variant, matched, shape)
    return points


def _point(variant: Variant, values: Hyperparameters, shape: ModelShape) -> dict[str, Any]:
    rank = None
    if variant.has_rank and values.rank is not None:
        rank = min(values.rank, variant.rank_limit(shape.linears))
    return {
        "learning_rate": values.learning_rate,
        "rank": rank,
        "alpha": values.alpha if variant.has_alpha else None,
        "epochs": values.epochs,
        "target_modules": _module_text(values.target_modules) if variant.has_adapter else None,
        **{name: variant.options[name] for name in variant.space.options},
    }


def _module_text(modules: str | tuple[str, ...]) -> str:
    return modules if isinstance(modules, str) else ",".join(modules)


def fits(name: str, value: Any, variant: Variant, shape: ModelShape) -> bool:
    """Return whether a value fits the model: it has the target modules, or layers wide enough for the rank."""
    if name == "target_modules":
        try:
            resolve_modules(value, shape, model="")
        except OptionError:
            return False
    if name == "rank":
        shapes = adapted_shapes(shape, resolve_modules("all-linear", shape, model=""), tuple(range(shape.n_layers)))
        return variant.rank_problem(value, shapes) is None
    return True


def _check_override(name: str, dimension: Dimension, variant: Variant, shape: ModelShape) -> None:
    """Check that the ranks and modules of an override fit the model.

    Raises:
        OptionError: a value does not fit; the message says what is allowed.
    """
    if name == "rank" and isinstance(dimension, Range) and variant.check_rank is not None:
        allowed = f"rank of {variant.name} must be a list, as not every number fits"
        raise OptionError("space", f"{dimension.low}..{dimension.high}", allowed)
    ends = dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)
    for value in ends:
        if name == "target_modules":
            resolve_modules(value, shape, model="")
        if name == "rank":
            shapes = adapted_shapes(shape, resolve_modules("all-linear", shape, model=""), tuple(range(shape.n_layers)))
            problem = variant.rank_problem(int(value), shapes)
            if problem is not None:
                raise OptionError("space", value, f"rank of {variant.name} {problem}")


def read_space(text: str, variants: Sequence[Variant]) -> tuple[str, dict[str, dict[str, Dimension]]]:
    """Read the option `space`: a kind, or a YAML file with lists and ranges.

        learning_rate: {low: 1.0e-4, high: 1.0e-2}
        vera: {rank: [128, 256]}

    The section of a variant takes precedence over the dimensions for all variants.

    Returns:
        The kind of the dimensions that the file does not set, and the dimensions of the file by variant.

    Raises:
        OptionError: the text is neither, the file cannot be read, or it names something that cannot be searched.
    """
    if not text.endswith((".yaml", ".yml")):
        return check_choice("space", text, KINDS), {variant.name: {} for variant in variants}
    path = given_path(text)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionError("space", text, f"cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise OptionError("space", text, "must name dimensions, such as learning_rate: {low: 1.0e-4, high: 1.0e-2}")
    names = set(variant_names())  # one file may serve workers that tune one variant each
    overrides: dict[str, dict[str, Dimension]] = {}
    for variant in variants:
        shared, section = {k: v for k, v in content.items() if k not in names}, content.get(variant.name) or {}
        searchable = _dimension_names(variant)
        for entries, allowed in ((shared, [*SEARCHED, *searchable]), (section, searchable)):
            for name in entries.keys() - set(allowed):
                listed, hint = ", ".join(dict.fromkeys(allowed)), did_you_mean(str(name), [*allowed, *names])
                raise OptionError("space", text, f"has {name!r}; allowed for {variant.name} are {listed}{hint}")
        merged = {k: v for k, v in shared.items() if k in searchable} | section
        overrides[variant.name] = {name: _dimension(text, name, value) for name, value in merged.items()}
    return KINDS[0], overrides


def _dimension_names(variant: Variant) -> list[str]:
    """Return the names of the dimensions that a variant can have."""
    lacks = {"rank": not variant.has_rank, "alpha": not variant.has_alpha, "target_modules": not variant.has_adapter}
    return [*(name for name in SEARCHED if not lacks.get(name)), *variant.space.options]


def _dimension(file: str, name: str, value: Any) -> Dimension:
    try:
        if isinstance(value, list) and value:
            if name == "target_modules":
                return Choice(values=tuple(map(str, value)))
            numbers = sorted(_number(name, v) for v in value)
            if numbers[0] > 0:
                return Choice(values=tuple(numbers))
        elif isinstance(value, dict) and value.keys() == {"low", "high"} and name != "target_modules":
            low, high = _number(name, value["low"]), _number(name, value["high"])
            if 0 < low < high:
                return Range(low=low, high=high)
    except (TypeError, ValueError):
        pass
    raise OptionError(
        "space", file, f"{name} must be a list of positive numbers or {{low: ..., high: ...}}, low above 0"
    )


def _number(name: str, value: Any) -> float:
    """Return an integer for counts, else a float; YAML reads 1e-4, without a decimal point, as text."""
    return int(value) if name in ("rank", "epochs") else float(value)
