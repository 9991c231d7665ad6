"""Builds search spaces: the variant's space, restricted to what fits the model, with the user's overrides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuning.dimensions.kinds import Choice, Dimension, Range, is_log
from tuning.dimensions.recipe import ALPHA_RULE, ALPHA_RULES, LEAST_BATCHES, RECIPE, unsearchable
from tuning.dimensions.space_file import read_dimension
from whichlora.caller import given_path
from whichlora.config.hyperparameters import adapted_shapes, arm_hyperparameters, resolve_modules
from whichlora.errors import OptionError, check_choice, did_you_mean
from whichlora.models.loading import ModelShape
from whichlora.variants import CATALOGUE, Hyperparameters, Variant, variant_names
from whichlora.yaml_files import Path_, read_document

if TYPE_CHECKING:
    from optuna import Trial

KINDS = ("paper", "continuous")
SEARCHED = ("learning_rate", "rank", "alpha", "epochs", "target_modules", *RECIPE)
"""Options of a run that a study can search; an option that the user sets is not searched."""
_CONTINUOUS = ("learning_rate", "alpha", "batch_size", "warmup", "dropout")
_WHOLE = ("rank", "batch_size")


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
    variant: Variant,
    shape: ModelShape,
    *,
    fixed: Collection[str],
    kind: str,
    overrides: Mapping[str, Any],
    search: Collection[str] = (),
    largest_batch: int | None = None,
) -> Space:
    """Return the search space of a variant on a model.

    Ranks that do not fit the model's layers, modules that it lacks and batches that are too large are dropped; the
    recommended and the matched values are always included.

    Args:
        fixed: options that the user set, which are not searched.
        kind: "paper", the grid of the paper's Appendix D, or "continuous", in which numbers range over a log scale
            between the ends of the grid, and warm-up and dropout over a linear one. A rank that must divide the
            layers' widths remains a list.
        overrides: the user's lists and ranges by dimension, which replace the variant's.
        search: what is searched besides, of `tuning.dimensions.recipe.NAMES`.
        largest_batch: the largest batch size; None for no limit.
    """
    space = variant.space
    values: dict[str, Sequence[Any]] = {
        "learning_rate": space.learning_rate,
        "rank": space.rank,
        "alpha": space.alpha,
        "epochs": space.epochs,
        "target_modules": [_module_text(modules) for modules in space.target_modules],
        **{name: listed if name in search else () for name, listed in RECIPE.items()},
        **space.options,
    }
    if ALPHA_RULE in search and ALPHA_RULE not in unsearchable(variant):
        values["alpha"] = ALPHA_RULES
    known = known_points(variant, shape, largest_batch)
    dimensions: dict[str, Dimension] = {}
    for name in _dimension_names(variant):
        listed = values[name]
        if name in fixed or not (listed or name in overrides):
            continue
        if name in overrides:
            _check_override(name, overrides[name], variant, shape, largest_batch)
            dimensions[name] = overrides[name]
            continue
        added = [point[name] for point in known.values() if point.get(name) is not None]
        usable = [value for value in dict.fromkeys([*listed, *added]) if fits(name, value, variant, shape)]
        if name == "batch_size" and largest_batch is not None:
            usable = [value for value in usable if value <= largest_batch]
        numbers = all(not isinstance(value, str) for value in usable)
        ordered = tuple(sorted(usable)) if numbers else tuple(usable)
        if kind == "continuous" and numbers and _can_be_continuous(name, variant) and len(ordered) > 1:
            ends = (ordered[0], ordered[-1]) if name in _WHOLE else (float(ordered[0]), float(ordered[-1]))
            dimensions[name] = Range(low=ends[0], high=ends[1], log=is_log(name, ends[0]))
        else:
            dimensions[name] = Choice(values=ordered)
    return Space(dimensions=dimensions)


def _can_be_continuous(name: str, variant: Variant) -> bool:
    return name in _CONTINUOUS or (name == "rank" and variant.check_rank is None)


def describe_point(point: Mapping[str, Any]) -> str:
    """Format a point for display."""
    return ", ".join(f"{k} {v:g}" if isinstance(v, (int, float)) else f"{k} {v}" for k, v in point.items())


def known_points(variant: Variant, shape: ModelShape, largest_batch: int | None = None) -> dict[str, dict[str, Any]]:
    """Return the points that a study tries first: "recommended", and "matched" if its learning rate is known.

    Their rank and batch size are at most what the model and the number of items allow.
    """
    recommended = variant.recommended
    assert recommended is not None
    points = {"recommended": _point(variant, recommended, shape, largest_batch)}
    if variant.matched_learning_rate is not None:
        matched = arm_hyperparameters(variant, "matched")
        assert matched is not None
        points["matched"] = _point(variant, matched, shape, largest_batch)
    return points


def _point(variant: Variant, values: Hyperparameters, shape: ModelShape, largest_batch: int | None) -> dict[str, Any]:
    rank = None
    if variant.has_rank and values.rank is not None:
        rank = min(values.rank, variant.rank_limit(shape.linears))
    return {
        "learning_rate": values.learning_rate,
        "rank": rank,
        "alpha": values.alpha if variant.has_alpha else None,
        "epochs": values.epochs,
        "target_modules": _module_text(values.target_modules) if variant.adapts_layers else None,
        **{name: getattr(values, name) for name in RECIPE if name not in unsearchable(variant)},
        "batch_size": min(values.batch_size, largest_batch or values.batch_size),
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


def _check_override(
    name: str, dimension: Dimension, variant: Variant, shape: ModelShape, largest_batch: int | None
) -> None:
    """Check that the ranks and modules of an override fit the model, and its batches the number of items.

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
        if name == "batch_size" and largest_batch is not None and value > largest_batch:
            allowed = f"batch_size must be at most {largest_batch}, for {LEAST_BATCHES} batches in an epoch"
            raise OptionError("space", value, allowed)


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
    document = read_document("space", given_path(text))
    if not isinstance(document.content, dict):
        document.fail((), "must name dimensions, such as learning_rate: {low: 1.0e-4, high: 1.0e-2}")
    names = set(variant_names())  # one file may serve workers that tune one variant each
    sections = [name for name in document.content if name in names]
    for name in sections:
        if not isinstance(document.content[name], dict):
            document.fail((name,), f"{name} must be a mapping of dimensions, such as rank: [4, 8]")
    overrides: dict[str, dict[str, Dimension]] = {}
    others = [CATALOGUE[name] for name in sections if name in CATALOGUE and CATALOGUE[name] not in variants]
    for variant in (*variants, *others):
        searchable = _dimension_names(variant)
        paths: dict[Path_, list[str]] = {}
        if variant in variants:
            paths |= {(name,): [*SEARCHED, *searchable] for name in document.content if name not in names}
        paths |= {(variant.name, name): searchable for name in document.content.get(variant.name, {})}
        found: dict[str, Dimension] = {}
        for path, allowed in paths.items():
            name = str(path[-1])
            if name not in allowed:
                listed, hint = ", ".join(dict.fromkeys(allowed)), did_you_mean(name, [*allowed, *names])
                document.fail(path, f"has {name!r}; allowed for {variant.name} are {listed}{hint}")
            dimension = read_dimension(document, path, variant)
            if name in searchable:
                found[name] = dimension
        overrides[variant.name] = found
    return KINDS[0], {variant.name: overrides[variant.name] for variant in variants}


def _dimension_names(variant: Variant) -> list[str]:
    """Return the names of the dimensions that a variant can have."""
    lacks = {"rank": not variant.has_rank, "alpha": not variant.has_alpha, "target_modules": not variant.adapts_layers}
    lacks |= dict.fromkeys(unsearchable(variant), True)
    return [*(name for name in SEARCHED if not lacks.get(name)), *variant.space.options]
