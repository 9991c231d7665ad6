"""What each adapter of the catalogue can do: the table that `python -m whichlora.testing.capabilities` tries out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from whichlora.errors import OptionError

CAPABILITIES: Mapping[str, str] = {
    "nf4": "trains on a base in 4 bits (NF4) and reloads to the same outputs",
    "bf16": "trains on a base in bf16 and reloads to the same outputs",
    "merge": "merges into the weights without a change of the outputs",
    "layers": "adapts chosen layers only, also after reloading",
    "biases": "adapts layers that have a bias, and keeps it",
    "experts": "adapts the experts of a mixture of experts, which transformers stores as one tensor",
    "dropout": "applies dropout in training",
    "pack": "several runs train in one pass with the gradients of each alone",
}
FILE = "capabilities.json"
NO_NEEDS = "none"
"""Value of the option `needs` with which variants are not filtered."""
_PROBED = "-"
"""Cell of a table for a variant that was not tried out: one without an adapter, or that of an installed package."""

Table = Mapping[str, Mapping[str, str]]
"""Maps variants and capabilities to the reason why the method lacks it; empty if it has it."""


@cache
def table() -> Table:
    """Return the table in the package."""
    text = files("whichlora.variants").joinpath(FILE).read_text(encoding="utf-8")
    return json.loads(text)["variants"]  # type: ignore[no-any-return]


def capabilities_of(variant: str) -> list[str] | None:
    """Return the capabilities of a variant, in the order of `CAPABILITIES`; None if it was not tried out."""
    row = table().get(variant)
    return None if row is None else [name for name in CAPABILITIES if not row[name]]


def lacks(variant: str, capability: str) -> bool:
    """Return whether a variant was found to lack a capability; one that was not tried out may have it."""
    return bool(table().get(variant, {}).get(capability))


def capabilities_text(variant: str) -> str:
    """Return the capabilities of a variant as a list in one line."""
    found = capabilities_of(variant)
    return _PROBED if found is None else ", ".join(found)


def parse_needs(text: str) -> frozenset[str]:
    """Parse the option `needs`: capabilities, joined by commas, or `NO_NEEDS`.

    Raises:
        OptionError: a name is not one of `CAPABILITIES`.
    """
    names = [] if text == NO_NEEDS else [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in CAPABILITIES]:
        allowed = (
            f"{unknown[0] or 'an empty name'} is not a capability; allowed are {', '.join((NO_NEEDS, *CAPABILITIES))}"
        )
        raise OptionError("needs", text, allowed)
    return frozenset(names)


def has_all(variant: str, needs: frozenset[str]) -> bool:
    """Return whether a variant has all of these capabilities; one that was not tried out has none."""
    return needs <= frozenset(capabilities_of(variant) or ())


def markdown(shown: Table) -> str:
    """Return a table as Markdown, with the reasons for what is missing as a list below it."""
    lines = [["variant", *CAPABILITIES], ["---", *[":-:"] * len(CAPABILITIES)]]
    lines += [
        [f"`{variant}`", *("no" if row[name] else "yes" for name in CAPABILITIES)] for variant, row in shown.items()
    ]
    cells = ["| " + " | ".join(line) + " |" for line in lines]
    reasons: dict[tuple[str, str], list[str]] = {}
    for variant, row in shown.items():
        for name in CAPABILITIES:
            if row[name]:
                reasons.setdefault((name, row[name]), []).append(f"`{variant}`")
    order = sorted(reasons, key=lambda key: list(CAPABILITIES).index(key[0]))
    notes = [f"- **{name}**, {', '.join(reasons[name, reason])}: {reason}" for name, reason in order]
    return "\n".join([*cells, "", *notes])
