"""A run on a GGUF file under the Gemma terms: what it logs, exports and predicts, here and with a copy of the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from gguf_files import write_gguf
from runs import plan_of, run_of

from whichlora.data.tasks.items import named_texts
from whichlora.export.command import main as export
from whichlora.predict.command import main as predict
from whichlora.testing.runs import predictions_of
from whichlora.tracking.client import connect
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.sqlite import artifact_folder


def predicted(table: Path, *options: str) -> list[str]:
    output = table.with_name("predicted.csv")
    output.unlink(missing_ok=True)
    assert predict([*options, "--input", str(table), "--output", str(output)]) == 0
    return pd.read_csv(output)["predicted"].tolist()


@pytest.mark.slow
def test_a_run_on_a_gguf_file_is_found_exported_and_predicts(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(store / "cache"))
    file = write_gguf(Path(tiny_model), store / "tiny.gguf", change=lambda writer: writer.add_license("gemma"))
    elsewhere = store / "elsewhere"
    elsewhere.mkdir()
    plan, moved = plan_of(str(file)), plan_of(shutil.copy(file, elsewhere / "other.gguf"))
    assert plan.spec.fingerprint == moved.spec.fingerprint
    run_id = run_of(plan).run_id
    client = connect()
    model = model_of_run(client, run_id)
    assert model is not None
    for location in (client.get_run(run_id).info.artifact_uri, model.artifact_location):
        folder = artifact_folder(location)
        assert folder is not None
        assert "adapter, made by training on top of tiny.gguf" in (folder / "adapter" / "NOTICE").read_text()
    out = store / "out"
    assert export(["--run_id", run_id, "--output", str(out)]) == 0
    assert (out / "NOTICE").is_file()
    assert str(store) not in "".join(path.read_text() for path in out.glob("*.json"))
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny.gguf"

    table = store / "items.jsonl"
    table.write_text("".join(f"{json.dumps(named_texts(item))}\n" for item in plan.tests["tl"].items))
    expected = predictions_of(run_id, "tl")["predicted"].tolist()
    assert predicted(table, "--run_id", run_id) == expected
    assert predicted(table, "--model", str(out), "--base", str(elsewhere / "other.gguf")) == expected
    write_gguf(Path(tiny_model), file, quantization="Q8_0")
    capsys.readouterr()
    assert predict(["--run_id", run_id, "--input", str(table)]) == 2
    assert "has another model now" in capsys.readouterr().err
