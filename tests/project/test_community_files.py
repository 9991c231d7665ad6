"""CITATION.cff and the forms for issues are what the programs that read them expect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import whichlora

ROOT = Path(__file__).parents[2]
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def conforms(schema: str, *files: Path) -> bool:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", [ROOT / "CITATION.cff"]),
        ("github-issue-forms", sorted(FORMS.glob("[!c]*.yml"))),
        ("github-issue-config", [FORMS / "config.yml"]),
    ],
)
def test_a_file_conforms_to_its_schema(schema: str, files: list[Path]) -> None:
    assert files
    assert conforms(schema, *files)


def test_a_file_that_does_not_conform_is_found(tmp_path: Path) -> None:
    broken = tmp_path / "CITATION.cff"
    broken.write_text((ROOT / "CITATION.cff").read_text().replace("authors:", "writers:", 1))
    assert not conforms("citation-file-format", broken)


def test_the_version_to_cite_is_that_of_the_package() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == whichlora.__version__
