"""Project files agree with the code, and source files are short."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from whichlora.config.options import RUN_OPTIONS

ROOT = Path(__file__).parents[2]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text())
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "conda.yaml").read_text())
entry_points = pytest.mark.parametrize("entry", PROJECT["entry_points"])


def test_the_options_of_main_are_the_parameters_of_the_project():
    parameters = PROJECT["entry_points"]["main"]["parameters"]
    assert {name: p["default"] for name, p in parameters.items()} == {name: d for name, (d, _) in RUN_OPTIONS.items()}


@pytest.mark.parametrize(
    ("entry", "module"),
    [
        ("experiment", "whichlora.experiment.command"),
        ("tune", "tuning.tune"),
        ("compare", "comparing.compare"),
        ("probe", "whichlora.probing.options"),
        ("analyze", "analysis.analyze"),
        ("predict", "whichlora.predict.options"),
        ("export", "whichlora.export.options"),
    ],
)
def test_the_options_of_an_entry_point_are_the_parameters_of_the_project(entry, module):
    options = importlib.import_module(module).OPTIONS
    parameters = PROJECT["entry_points"][entry]["parameters"]
    assert {name: p.get("default") for name, p in parameters.items()} == {n: d for n, (d, _) in options.items()}


@entry_points
def test_every_parameter_is_a_string(entry):
    """Other types do not accept `auto`, and YAML would not read 42 or false as text."""
    for parameter in PROJECT["entry_points"][entry]["parameters"].values():
        assert parameter["type"] == "string"
        assert isinstance(parameter.get("default", ""), str)  # an option without a default is required


@entry_points
def test_every_parameter_is_passed_under_its_own_name(entry):
    point = PROJECT["entry_points"][entry]
    passed = re.findall(r"--(\w+) \{(\w+)\}", point["command"])
    assert [name for name, _ in passed] == [value for _, value in passed] == list(point["parameters"])
    assert point["command"].count("{") == point["command"].count("--") == len(passed)


@entry_points
def test_the_module_of_an_entry_point_has_a_command_line(entry):
    name = re.search(r"python -m ([\w.]+)", PROJECT["entry_points"][entry]["command"])[1]
    if find_spec(name).submodule_search_locations is None:
        assert callable(importlib.import_module(name).main)
    else:  # a package; its __main__ calls main
        assert find_spec(f"{name}.__main__")


def test_the_makefile_calls_existing_modules():
    modules = re.findall(r"python -m (whichlora[\w.]*)", (ROOT / "Makefile").read_text())
    assert modules
    for name in modules:
        importlib.import_module(name)


def test_the_environment_of_the_project_is_that_of_the_package():
    python = next(d for d in CONDA["dependencies"] if isinstance(d, str) and d.startswith("python="))
    pip = next(d["pip"] for d in CONDA["dependencies"] if isinstance(d, dict))
    assert pip == METADATA["dependencies"]
    assert METADATA["requires-python"].startswith(">=" + python.removeprefix("python="))
    assert PROJECT["conda_env"] == "conda.yaml"


@pytest.mark.parametrize(
    ("folder", "extras"), [("src", []), ("tuning", []), ("analysis", []), ("comparing", []), ("tests", ["dev"])]
)
def test_every_package_that_is_imported_is_declared(folder, extras):
    """A package that is only installed here would be missing in a new environment."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = [*METADATA["dependencies"], *(r for extra in extras for r in METADATA["optional-dependencies"][extra])]
    declared = {canonicalize_name(Requirement(r).name) for r in wanted}
    tests = {path.stem for path in (ROOT / "tests").rglob("*.py")} | {"whichlora_example"}
    ours = {"whichlora", "tuning", "analysis", "comparing", "benchmarks", "docs", *tests}
    providers = packages_distributions()
    for path in (ROOT / folder).rglob("*.py"):
        for name in _imported(ast.parse(path.read_text())) - ours - sys.stdlib_module_names:
            assert declared & {canonicalize_name(d) for d in providers[name]}, f"{path}: {name}"


def _imported(tree: ast.Module) -> set[str]:
    """Return the top-level names that a module imports anywhere in its code."""
    plain = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    return {name.split(".")[0] for name in [*plain, *froms]}


def test_make_installs_a_torch_that_the_package_allows():
    from packaging.requirements import Requirement

    wanted = next(r for r in map(Requirement, METADATA["dependencies"]) if r.name == "torch")
    pinned = re.search(r"^torch==([\d.]+)", (ROOT / "requirements" / "torch.txt").read_text(), re.MULTILINE)[1]
    assert pinned in wanted.specifier


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readme_states_the_two_commands(command):
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_checks_of_the_repository_run_the_tests():
    script = ROOT / ".ci" / "run"
    assert {"make check", "make docs", "make test"} <= set(script.read_text().splitlines())
    assert script.stat().st_mode & 0o111


TOP = {
    *(".ci", ".dockerignore", ".env.example", ".github", ".gitignore", ".pre-commit-config.yaml"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "MLproject", "Makefile"),
    *("README.md", "SECURITY.md", "analysis", "benchmarks", "comparing", "conda.yaml", "docker-compose.yml", "docs"),
    *("experiments", "mkdocs.yml", "pyproject.toml", "requirements", "src", "tests", "tuning"),
}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
def test_no_file_is_added_at_the_top_by_mistake():
    """Such as a wheel that a tool has left there."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {path.partition("/")[0] for path in listed.splitlines()} == TOP


PACKAGES = ("src", "tuning", "analysis", "comparing", "benchmarks")


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_a_file_is_short_enough_to_read(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for name in PACKAGES for path in (ROOT / name).rglob("*.py")}),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_a_folder_has_few_enough_modules_to_survey(folder):
    assert len([path for path in folder.glob("*.py") if path.name != "__init__.py"]) <= 20


def test_the_map_of_the_code_has_a_line_for_every_package():
    entries = {path.name for path in (ROOT / "src" / "whichlora").iterdir()} - {
        "__init__.py",
        "__pycache__",
        "py.typed",
    }
    page = "docs/contributing/code.md"
    assert f"({page})" in (ROOT / "README.md").read_text()
    tree = (ROOT / page).read_text().partition("src/whichlora/")[2].partition("```")[0]
    named = re.findall(r"^  ([\w.]+)", tree, re.MULTILINE)
    assert sorted(named) == sorted(entries)


def test_every_package_has_a_place_in_the_order_of_imports():
    """import-linter checks the order itself, in `make check`."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert layers["exhaustive"]
    placed = {name.strip(" ()") for layer in layers["layers"] for name in layer.split("|")}
    entries = {path.stem for path in (ROOT / "src" / "whichlora").iterdir()} - {"__init__", "__pycache__", "py"}
    assert placed - {"testing"} <= entries <= placed


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by their names alone, and would leave out the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
