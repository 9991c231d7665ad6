"""Reads an experiment's YAML file and resolves it into the runs it stands for.

    name: smoke                     # the MLflow experiment
    about: What the file is for.
    defaults:                       # options of `main`; a list stands for each of its values
      language: [sw, ur]
      seed: [1, 2, 3]
    arms:                           # what is compared; each with every combination of the defaults
      - {variant: lora}
      - {variant: lora, arm: recommended, source: "Table 11 of the paper"}

An arm's own options come before the defaults. `options` are a variant's own settings, as in `options: {rate_ratio: 4}`.
`source`, which says where an arm's values come from, is only kept.

    extends: table2.yaml            # another file beside this one: what is not said here is said there
    defaults: {model: my/model}     # and these come before its defaults

Files of one name are parts of one MLflow experiment, and what two of them ask for is one run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from whichlora.config.options import MAIN, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError, did_you_mean

_OF_ARMS = ("source", "options")
_KEYS = ("extends", "name", "about", "defaults", "arms")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of an experiment, the seeds' blocks one after the other, so that an early stop leaves whole ones."""

    name: str
    about: str
    plans: Sequence[Plan]

    def cells(self) -> dict[str, list[Plan]]:
        """Return the runs by training fingerprint: those of a cell share one adapter."""
        cells: dict[str, list[Plan]] = {}
        for plan in self.plans:
            cells.setdefault(plan.spec.training_fingerprint, []).append(plan)
        return cells


def read_grid(file: str) -> Grid:
    """Read and resolve an experiment.

    Raises:
        OptionError: the file is missing or not of this form, or one of its runs has a bad option.
    """
    content = _read(file)
    plans: dict[str, Plan] = {}
    for options, own in _runs(content):
        texts = {name: default for name, (default, _) in MAIN.items()} | options
        try:
            plan = resolve(parse_options(texts), own)
        except OptionError as error:
            where = " ".join(f"{name}={value}" for name, value in options.items())
            raise OptionError("file", file, f"in the run {where}: {error}") from error
        plans.setdefault(plan.spec.fingerprint, plan)
    precisions = sorted({plan.spec.precision for plan in plans.values()})
    if len(precisions) > 1:
        raise OptionError("file", file, f"must have one precision, or methods are not compared; has {precisions}")
    return Grid(name=content["name"], about=str(content.get("about", "")).strip(), plans=list(plans.values()))


def _read(file: str) -> dict[str, Any]:
    content = _extended(Path(file), ())
    if "name" not in content:
        raise OptionError("file", file, f"must have the keys name and arms, and may have {', '.join(_KEYS)}")
    arms, defaults = content.get("arms"), content["defaults"]
    if not (isinstance(arms, list) and arms and all(isinstance(arm, dict) for arm in arms)):
        raise OptionError("file", file, "arms must be a list of options, such as - {variant: lora}")
    for name in {name for options in (defaults, *arms) for name in options} - set(_OF_ARMS):
        if any(options.get(name) == [] for options in (defaults, *arms)):
            raise OptionError("file", file, f"has no value for {name}")
        if name not in MAIN:
            raise OptionError("file", file, f"has no option {name!r} of main{did_you_mean(str(name), MAIN)}")
    content["name"] = str(content["name"])
    return content


def _extended(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Return what a file says, with what those say that it extends."""
    if path.resolve() in extending:
        raise OptionError("file", str(path), "must not extend itself")
    if not path.is_file():
        hint = did_you_mean(str(path), map(str, path.parent.glob("*.yaml")))
        raise OptionError("file", str(path), f"must be an experiment's YAML file{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError("file", str(path), f"is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.keys() <= set(_KEYS):
        raise OptionError("file", str(path), f"must have the keys name and arms, and may have {', '.join(_KEYS)}")
    if not isinstance(content.setdefault("defaults", {}), dict):
        raise OptionError("file", str(path), "defaults must be options, such as seed: [1, 2, 3]")
    if "extends" not in content:
        return content
    extended = _extended(path.parent / str(content.pop("extends")), (*extending, path.resolve()))
    return extended | content | {"defaults": extended["defaults"] | content["defaults"]}


def _runs(content: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], Mapping[str, Any]]]:
    """Yield the options of each run and its variant's own settings: seed by seed, and in a seed the arms in turn."""
    arms = [
        (own, arm.get("options") or {})
        for arm in content["arms"]
        for own in _products({k: v for k, v in arm.items() if k not in _OF_ARMS})
    ]
    ordered = []
    for place, (own, settings) in enumerate(arms):
        shared = {name: values for name, values in content["defaults"].items() if name not in own}
        seeds = shared.pop("seed", None)
        for turn, combination in enumerate(_products(shared)):
            for seed_place, seed in enumerate(_products({} if seeds is None else {"seed": seeds})):
                ordered.append(((seed_place, turn, place), ({**combination, **seed, **own}, settings)))
    yield from (run for _, run in sorted(ordered, key=lambda pair: pair[0]))


def _products(options: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield every combination of the values, the last option's changing fastest."""
    values = [value if isinstance(value, list) else [value] for value in options.values()]
    for chosen in itertools.product(*values):
        yield {name: _text(value) for name, value in zip(options, chosen, strict=True)}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
