"""`python -m whichlora.variants` as a separate process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from whichlora.variants import CATALOGUE
from whichlora.variants.command import main

ROOT = Path(__file__).parents[2]


def called(*arguments: str) -> tuple[int, str, str]:
    """Run the command; return its exit status and both streams."""
    done = subprocess.run(
        [sys.executable, "-m", "whichlora.variants", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_the_command_counts_parameters_of_a_model_in_a_folder(tiny_model: str) -> None:
    status, out, err = called("--model", tiny_model)
    assert (status, err) == (0, "")
    blocks = {block.split()[1]: block for block in out.strip().split("\n\n")}
    assert list(blocks) == list(CATALOGUE)
    # Blocks of 32 x 32 or x 16 (twice) in attention, 32 x 64 three times in the feed-forward: 8 (in + out), 3 times.
    lora = 3 * 8 * (2 * 64 + 2 * 48 + 3 * 96)
    assert re.search(rf"^parameters +{lora:,} \(.* %\) at rank 8$", blocks["lora"], re.MULTILINE)
    assert re.search(r"^supports +layers, nf4, alpha, rank$", blocks["lora"], re.MULTILINE)
    assert re.search(r"^supports +layers, nf4$", blocks["ia3"], re.MULTILINE)
    assert "learning rate must be set (no equal sweep yet)" in blocks["olora"]
    for name, block in blocks.items():
        declared = CATALOGUE[name]
        assert declared.paper in block
        assert declared.recommended is None or declared.recommended.source in block


def test_markdown_is_one_table(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", tiny_model, "--format", "markdown", "--rank", "7"]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == len(CATALOGUE) + 2
    assert len({line.count(" | ") for line in lines}) == 1
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert "rank 7 does not fit: must be even" in rows["hra"]
    assert "at rank 7" in rows["lora"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rank", "0"], "rank=0: must be a whole number from 1"),
        (["--format", "html"], "format=html: allowed are text, markdown"),
        (["--model", "/no/such/folder"], "model=/no/such/folder: allowed are smollm2-135m"),
    ],
)
def test_a_bad_option_ends_with_status_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}")
    assert err.count("\n") == 1


def test_a_bad_option_as_a_process() -> None:
    status, out, err = called("--rank", "many")
    assert (status, out) == (2, "")
    assert err == "error: rank=many: must be a whole number from 1 to 1000000000, or auto\n"
