"""The lock: every package that `make` and the images install, with its hashes, as pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = PROJECT["project"]["dependencies"]
WANTED = {
    "worker": DEPENDENCIES,
    "develop": [*DEPENDENCIES, *PROJECT["project"]["optional-dependencies"]["dev"]],
    "server": PROJECT["dependency-groups"]["server"],
    "docs": PROJECT["dependency-groups"]["docs"],
}
LOCKS = (*WANTED, "torch")


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions by package."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([\w.+!-]+)", text(name), re.MULTILINE):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


def text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_no_host_is_named(name: str) -> None:
    entries = re.split(r"\n(?=[A-Za-z])", re.sub(r"^#.*\n", "", text(name), flags=re.MULTILINE).strip())
    assert len(entries) > 10
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+( ; [^\\]+)?(\s*\\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    assert "://" not in text(name)
    assert "index" not in re.sub("jsfetch.*", "", text(name))


@pytest.mark.parametrize("name", WANTED)
def test_what_is_wanted_is_locked_in_a_version_that_is_allowed(name: str) -> None:
    versions = locked(name) | ({} if name in ("server", "docs") else locked("torch"))
    for requirement in map(Requirement, WANTED[name]):
        found = versions[canonicalize_name(requirement.name)]
        bounds = next(
            (r.specifier for r in map(Requirement, DEPENDENCIES) if r.name == requirement.name), requirement.specifier
        )
        assert all(bounds.contains(version) and requirement.specifier.contains(version) for version in found), found


def test_the_locks_agree() -> None:
    develop = locked("develop")
    for name in ("worker", "server"):
        for package, versions in locked(name).items():
            assert versions <= develop[package], package
    assert "torch" not in {**locked("worker"), **locked("server"), **develop}  # whose build depends on the machine
    assert locked("torch")["torch"]


def test_make_and_the_images_install_from_the_locks() -> None:
    makefile, dockerfile = (ROOT / "Makefile").read_text(), (ROOT / "Dockerfile").read_text()
    assert "--require-hashes --no-deps --requirement requirements/develop.txt" in makefile
    for name in ("worker", "server", "torch"):
        assert f"--no-deps --require-hashes --requirement requirements/{name}.txt" in dockerfile
    assert "!requirements" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.parametrize(("package", "version"), [("torch", "2.10"), ("filelock", "3.20.3"), ("mlflow", "3.11")])
def test_versions_with_known_vulnerabilities_are_not_allowed(package: str, version: str) -> None:
    (requirement,) = (r for r in map(Requirement, DEPENDENCIES) if r.name == package)
    (lowest,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
    assert lowest == version
