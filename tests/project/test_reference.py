"""The reference of the documentation is complete and that of the code."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml
from runs import plan_of, run_of

from docs import badges, generate
from whichlora.__main__ import COMMANDS
from whichlora.tracking.client import connect
from whichlora.variants import CATALOGUE

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
CODE = [path for name in ("src", "tuning", "analysis") for path in sorted((ROOT / name).rglob("*.py"))]


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert page(name) == generate.page(name), "run `make reference`"


@pytest.mark.parametrize("name", badges.badges())
def test_a_badge_is_up_to_date_and_described_in_the_readme(name: str) -> None:
    label, value = badges.badges()[name]
    assert (badges.FOLDER / name).read_text() == badges.svg(label, value), "run `make reference`"
    assert f"![{label} {value}](docs/badges/{name})" in (ROOT / "README.md").read_text()


def test_a_page_that_is_not_up_to_date_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generate.PAGES, "tasks.md", lambda: "| another |")
    assert generate.page("tasks.md") != page("tasks.md")


def test_every_command_and_every_option_of_the_project_has_a_line() -> None:
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", page("commands.md"), re.DOTALL | re.MULTILINE))
    assert {f"whichlora {name}" for name in COMMANDS} <= set(sections)
    for entry, point in yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"].items():
        section = sections[f"whichlora {'run' if entry == 'main' else entry}"]
        assert f"mlflow run . -e {entry}`" in section
        for option in point["parameters"]:
            assert f"| `{option}` |" in section, (entry, option)


def test_every_variant_and_its_paper_is_named() -> None:
    text = page("variants.md")
    for variant in CATALOGUE.values():
        assert f"`{variant.name}`" in text
        assert variant.paper in text
    assert f"{len(CATALOGUE)} variants" in text


def test_every_environment_variable_of_the_code_is_named() -> None:
    used = {name for path in CODE for name in re.findall(r"\b_?WHICHLORA_[A-Z][A-Z_]*[A-Z]\b", path.read_text())}
    assert used
    assert {name for name in used if name not in page("environment.md")} == set()


def _unnamed(names: Iterable[str], name: str) -> list[str]:
    """The names that the first column of a page's tables lacks; in it `*` and `...` stand for any part."""
    rows = re.findall(r"^\| (`.+?) \|", page(name), re.MULTILINE)
    listed = [text.rstrip("/") for row in rows for text in re.findall(r"`([^`]+)`", row)]
    patterns = [re.escape(text).replace(re.escape("..."), ".+").replace(re.escape("*"), ".+") for text in listed]
    return [found for found in names if not any(re.fullmatch(f"{pattern}/?", found) for pattern in patterns)]


@pytest.mark.slow
def test_metrics_tags_and_artifacts_of_a_run_are_named(tiny_model: str, store: Path) -> None:
    result = run_of(plan_of(tiny_model))
    client = connect()
    data = client.get_run(result.run_id).data
    assert " ".join(_unnamed(data.metrics, "metrics.md")) == ""
    assert _unnamed([name for name in data.tags if name.startswith("whichlora.")], "runs-in-mlflow.md") == []
    artifacts = [entry.path for entry in client.list_artifacts(result.run_id)]
    artifacts += [entry.path for entry in client.list_artifacts(result.run_id, "predictions")]
    artifacts.remove("predictions")
    assert _unnamed(artifacts, "runs-in-mlflow.md") == []
