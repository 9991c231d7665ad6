"""Reads an experiment's YAML file and resolves it into runs.

    name: smoke                     # the MLflow experiment
    about: What the file is for.
    defaults:                       # options of `run`; a list stands for each of its values
      language: [sw, ur]
      seed: [1, 2, 3]
    arms:                           # what is compared; each with every combination of the defaults
      - {variant: lora}
      - {variant: lora, arm: recommended, source: "Table 11 of the paper"}

An arm's options take precedence over the defaults. `options` holds a variant's own settings, as in
`options: {rate_ratio: 4}`. `source` documents where an arm's values come from and has no effect.

    extends: table2.yaml            # another file in the same folder, which provides the missing keys
    defaults: {model: my/model}     # these take precedence over its defaults

Files with the same name belong to one MLflow experiment, and a run that two of them contain exists once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from whichlora.caller import given_path
from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError, check_name, did_you_mean

_ARM_KEYS = ("source", "options")
"""Keys of an arm that are not options of `run`."""
_KEYS = ("extends", "name", "about", "defaults", "arms")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The runs of an experiment, ordered by seed, so that an experiment stopped early has complete replications."""

    name: str
    about: str
    plans: Sequence[Plan]

    def cells(self) -> dict[str, list[Plan]]:
        """Return the runs by training fingerprint; the runs of a cell share one adapter."""
        cells: dict[str, list[Plan]] = {}
        for plan in self.plans:
            cells.setdefault(plan.spec.training_fingerprint, []).append(plan)
        return cells


def read_grid(file: str) -> Grid:
    """Read and resolve an experiment.

    Raises:
        OptionError: The file is missing or malformed, or one of its runs has an invalid option.
    """
    content = _read(file)
    plans: dict[str, Plan] = {}
    for options, settings in _runs(content):
        texts = {name: default for name, (default, _) in RUN_OPTIONS.items()} | options
        try:
            plan = resolve(parse_options(texts), settings)
        except OptionError as error:
            run = " ".join(f"{name}={value}" for name, value in options.items())
            raise OptionError("file", file, f"in the run {run}: {error}") from error
        plans.setdefault(plan.spec.fingerprint, plan)
    precisions = sorted({plan.spec.precision for plan in plans.values()})
    if len(precisions) > 1:
        allowed = f"must have one precision, so that methods are comparable; has {precisions}"
        raise OptionError("file", file, allowed)
    return Grid(name=content["name"], about=str(content.get("about", "")).strip(), plans=list(plans.values()))


def _read(file: str) -> dict[str, Any]:
    content = _extended(given_path(file), ())
    if "name" not in content:
        raise OptionError("file", file, f"must have the keys name and arms, and may have {', '.join(_KEYS)}")
    arms, defaults = content.get("arms"), content["defaults"]
    if not (isinstance(arms, list) and arms and all(isinstance(arm, dict) for arm in arms)):
        raise OptionError("file", file, "arms must be a list of options, such as - {variant: lora}")
    for name in {name for options in (defaults, *arms) for name in options} - set(_ARM_KEYS):
        if any(options.get(name) == [] for options in (defaults, *arms)):
            raise OptionError("file", file, f"has no value for {name}")
        if name not in RUN_OPTIONS:
            raise OptionError("file", file, f"has no option {name!r} of run{did_you_mean(str(name), RUN_OPTIONS)}")
    content["name"] = str(content["name"])
    check_name("file", content["name"], "name ")
    return content


def _extended(path: Path, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Return the content of a file merged with that of the file it extends, if any.

    `extending` are the files that extend this one, directly or indirectly.
    """
    if path.resolve() in extending:
        raise OptionError("file", str(path), "must not extend itself")
    if not path.is_file():
        hint = did_you_mean(str(path), map(str, path.parent.glob("*.yaml")))
        raise OptionError("file", str(path), f"must be the YAML file of an experiment{hint}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError("file", str(path), f"is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content.keys() <= set(_KEYS):
        raise OptionError("file", str(path), f"must have the keys name and arms, and may have {', '.join(_KEYS)}")
    if not isinstance(content.setdefault("defaults", {}), dict):
        raise OptionError("file", str(path), "defaults must be options, such as seed: [1, 2, 3]")
    if "extends" not in content:
        return content
    extended = _extended(path.parent / str(content.pop("extends")), (*extending, path.resolve()))
    return extended | content | {"defaults": extended["defaults"] | content["defaults"]}


def _runs(content: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], Mapping[str, Any]]]:
    """Yield the options and variant settings of each run, ordered by seed, then combination of defaults, then arm."""
    arms = [
        (arm_options, arm.get("options") or {})
        for arm in content["arms"]
        for arm_options in _combinations({k: v for k, v in arm.items() if k not in _ARM_KEYS})
    ]
    ordered = []
    for arm_index, (arm_options, settings) in enumerate(arms):
        shared = {name: values for name, values in content["defaults"].items() if name not in arm_options}
        seeds = shared.pop("seed", None)
        for index, combination in enumerate(_combinations(shared)):
            for seed_index, seed in enumerate(_combinations({} if seeds is None else {"seed": seeds})):
                ordered.append(((seed_index, index, arm_index), ({**combination, **seed, **arm_options}, settings)))
    yield from (run for _, run in sorted(ordered, key=lambda pair: pair[0]))


def _combinations(options: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield every combination of option values; the last option varies fastest."""
    value_lists = [value if isinstance(value, list) else [value] for value in options.values()]
    for values in itertools.product(*value_lists):
        yield {name: _text(value) for name, value in zip(options, values, strict=True)}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
