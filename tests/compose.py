"""Reads docker-compose.yml as Compose does, with values for its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docker-compose.yml").read_text()
SECRETS = {
    "POSTGRES_PASSWORD": "of postgres @/:",
    "MLFLOW_DATABASE_PASSWORD": "of mlflow's ' role",
    "WORKER_PASSWORD": "of workers, long",
    "DASHBOARD_PASSWORD": "of the dashboard",
    "MLFLOW_PASSWORD": "of mlflow, long",
    "MLFLOW_SECRET_KEY": "of forms",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^${}]*))?\}")


class RefusedError(Exception):
    """Compose would refuse to start."""


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Substitute variables as Compose does: `${A}`, `${A-default}`, `${A:-default}`, `${A:?message}`, nested."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match[1], match[2] or "-", match[3] or ""
        given = variables.get(name)
        if given is None or (kind.startswith(":") and not given):
            if kind.endswith("?"):
                raise RefusedError(f"{name}: {rest}")
            return rest
        return given

    while _VARIABLE.search(text):
        text = _VARIABLE.sub(value, text)
    assert "$" not in text
    return text


def read(**variables: str) -> dict[str, Any]:
    """Return the parsed file with these variables and the secrets substituted."""
    content = yaml.safe_load(TEXT)

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        if isinstance(node, list):
            return [filled(value) for value in node]
        return interpolate(node, SECRETS | variables) if isinstance(node, str) else node

    result: dict[str, Any] = filled(content)
    return result
