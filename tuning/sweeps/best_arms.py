"""The best rates of a sweep as the defaults and arms of an experiment's file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import yaml

from tuning.sweeps.methods import METHOD, POINT, Method
from tuning.sweeps.stages import Point, State
from whichlora.config.options import RUN_OPTIONS, parse_option
from whichlora.errors import printable


def rate_text(rate: float) -> str:
    """Return a rate with its power of ten and all its digits, such as 5e-4."""
    digits, _, power = f"{Decimal(repr(rate)).normalize():e}".partition("e")
    return f"{digits}e{int(power)}"


def arms(sweep: str, methods: Mapping[str, Method], states: Mapping[str, State], results: Iterable[Point]) -> str:
    """Return a block of YAML with the options that the methods share, and an arm for each method with a best rate.

    Args:
        sweep: its name, for the source of the arms.
        results: the points with a result.
    """
    done = Counter(point.method for point in results)
    best = {name: state.best for name, state in states.items() if state.best is not None}
    given = {name: _given(methods[name]) for name in best}
    shared = {
        option: value
        for option, value in next(iter(given.values()), {}).items()
        if option not in METHOD and all(option in found and found[option] == value for found in given.values())
    }
    lines = [f"defaults: {_flow(shared)}"] * bool(shared) + ["arms:"] * bool(best)
    for name, state in states.items():
        if state.best is not None:
            arm: dict[str, Any] = {option: value for option, value in given[name].items() if option not in shared}
            arm["learning_rate"] = state.best
            if settings := methods[name].settings:
                arm["options"] = dict(settings)
            edge = ", undecided: the best or an equal rate is the lowest or highest" * state.undecided
            lines.append(f"  - {_flow(arm | {'source': f'the sweep {sweep}, {done[name]} trainings{edge}'})}")
        elif not state.missing:
            lines.append(printable(f"  # {name}: no rate, because its trainings diverged"))
    return "\n".join(["```yaml", *lines, "```"]) if lines else ""


def _given(method: Method) -> dict[str, Any]:
    """Return variant, arm, and the other options of a method that are not the default ones, but for rate and seed."""
    defaults = {name: parse_option(name, default) for name, (default, _) in RUN_OPTIONS.items() if name not in METHOD}
    values = vars(method.options)
    different = {name: values[name] for name in defaults if name not in POINT and values[name] != defaults[name]}
    return {name: values[name] for name in METHOD} | different


def _flow(content: Mapping[str, Any]) -> str:
    """Return a mapping in one line of YAML."""
    text: str = yaml.safe_dump(dict(content), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.strip()
