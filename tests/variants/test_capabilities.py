"""The table of what each adapter can do: tried out again, printed, filtered and shown in the documentation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from methods import ADAPTERS

from whichlora.testing.capabilities import main
from whichlora.testing.capability_probes import Models, probe
from whichlora.variants import CATALOGUE
from whichlora.variants import capabilities as declared
from whichlora.variants.capabilities import CAPABILITIES, capabilities_of, markdown, table
from whichlora.variants.command import main as variants

ROOT = Path(__file__).parents[2]
FEW = [
    ("lora", "merge"),
    ("lily", "merge"),
    ("ia3", "dropout"),
    ("vera", "dropout"),
    ("oft", "pack"),
    ("hra", "biases"),
]
"""Some that have a capability, and some that lack it."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("capabilities"))


def test_every_adapter_has_a_row() -> None:
    assert list(table()) == ADAPTERS
    assert all(list(row) == list(CAPABILITIES) for row in table().values())


@pytest.mark.parametrize(("variant", "capability"), FEW)
def test_a_row_is_what_is_found_again(models: Models, variant: str, capability: str) -> None:
    assert probe(variant, models, [capability])[capability] == table()[variant][capability]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ADAPTERS)
def test_all_rows_are_what_is_found_again(models: Models, variant: str) -> None:
    found = probe(variant, models)
    assert {name: not reason for name, reason in found.items()} == {
        name: not reason for name, reason in table()[variant].items()
    }


def test_declarations_agree_with_what_was_found() -> None:
    for name in ADAPTERS:
        variant, found = CATALOGUE[name], capabilities_of(name)
        assert found is not None
        assert ("nf4" in found) == variant.quantizable, name
        assert ("merge" in found) == variant.mergeable, name
        shares = not (variant.changes_base or variant.changes_input or variant.fully_trained or variant.reads_batch)
        assert ("pack" in found) == shares, name


@pytest.mark.slow
def test_the_command_tries_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / declared.FILE
    monkeypatch.setattr("whichlora.testing.capabilities.files", lambda _: tmp_path)
    assert main(["ia3", "--write"]) == 0
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["variants"]["lora"] == table()["lora"]
    assert content["variants"]["ia3"] == table()["ia3"]
    with pytest.raises(SystemExit, match="2"):
        main(["full"])


def shown(capsys: pytest.CaptureFixture[str], model: str, needs: str) -> list[str]:
    assert variants(["--model", model, "--needs", needs, "--format", "markdown"]) == 0
    return [line.split(" | ")[0].removeprefix("| ") for line in capsys.readouterr().out.splitlines()[2:]]


def test_needs_filters_variants(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(capsys, tiny_model, "nf4, merge")
    assert found == [name for name in ADAPTERS if {"nf4", "merge"} <= set(capabilities_of(name) or ())]
    assert "lora" in found
    assert not {"lily", "pissa", "full", "none"} & set(found)
    assert variants(["--model", tiny_model, "--needs", "experts"]) == 0
    assert capsys.readouterr().out == "No variant has all of these capabilities.\n"
    assert variants(["--model", tiny_model, "--needs", "nf4,speed"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: needs=nf4,speed: speed is not a capability; allowed are none, nf4, bf16"
    )


def test_the_documentation_shows_the_table() -> None:
    text = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
    assert markdown(table()) in text
    assert all(f"- `{name}`: {meaning}" in text for name, meaning in CAPABILITIES.items())


def test_the_table_needs_no_torch() -> None:
    code = "import sys; from whichlora.variants.capabilities import table; table(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
