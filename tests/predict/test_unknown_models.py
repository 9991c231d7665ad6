"""The error about a model that is not registered says which ones are."""

from __future__ import annotations

from pathlib import Path

import pytest

from whichlora.predict.command import main
from whichlora.tracking.client import connect


@pytest.mark.parametrize("model", ["nobody", "models:/nobody/1"])
def test_the_error_about_a_model_says_what_there_is(
    model: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "in.jsonl").touch()
    for names, error in (
        ([], "none is registered: run_id takes the model of a run, and `whichlora runs` lists the runs"),
        (["nobodies"], "registered are nobodies"),
        ([f"model-{n:02}" for n in range(12)], "model-09 and 3 more"),
    ):
        for name in names:
            connect().create_registered_model(name)
        assert main(["--model", model, "--input", "in.jsonl"]) == 2
        assert error in capsys.readouterr().err
