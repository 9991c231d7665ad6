"""Declarations of public datasets."""

from __future__ import annotations

from importlib.resources import files

FOLDER = files("whichlora.data.tasks.catalogue")
CATALOGUE = tuple(sorted(entry.name[:-5] for entry in FOLDER.iterdir() if entry.name.endswith(".yaml")))
"""Names of the tasks that are declared here."""
