"""The command `export`: adapters of runs and trials, of earlier versions too, for people who lack whichlora."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import pytest
import torch
import yaml
from peft import PeftModel
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from whichlora.export.command import main
from whichlora.predict.command import main as predict
from whichlora.run.pipeline import trial
from whichlora.testing.runs import tracking_in
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.tracking.sqlite import artifact_folder


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_model: str) -> Iterator[Path]:
    """A folder with a tracking database and a run of each kind, whose ids are in `ids.json`."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copy(empty_database, folder / "mlflow.db")
    with tracking_in(folder), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        client = connect()
        ids = {name: run_of(plan_of(tiny_model, variant=name)).run_id for name in ("lora", "full", "none")}
        study = Tracker(client, "tests")
        plan = plan_of(tiny_model, variant="lora", learning_rate=0.02)
        for number, name in enumerate(("trial", "bare"), 1):
            tags = {"study": "s", "trial": str(number)}
            ids[name] = trial(plan, study, tags=tags, keep=lambda _: False).run_id
        adapter = Path(client.download_artifacts(ids["lora"], "adapter", str(folder)))
        for name in ("README.md", "tokenizer.json", "tokenizer_config.json", "whichlora.json"):
            (adapter / name).unlink()
        client.log_artifacts(ids["trial"], str(adapter), "adapter")
        found = client.search_runs(["1"], "tags.`whichlora.kind` = 'base'", max_results=1)
        ids["base"] = found[0].info.run_id
        ids["running"] = client.create_run("1", tags={"whichlora.kind": "run"}).info.run_id
        launch = {"whichlora.kind": "launch", "whichlora.result": ids["lora"]}
        ids["launch"] = client.create_run("1", tags=launch).info.run_id
        ids["foreign"] = client.create_run("1").info.run_id
        (folder / "ids.json").write_text(json.dumps(ids))
        yield folder


def call(*arguments: str) -> int:
    return main(list(arguments))


def ids(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "ids.json").read_text()))


def test_an_adapter_is_exported_with_all_that_lies_beside_it(
    tracked: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()  # an empty folder may be there
    assert call("--run_id", ids(tracked)["lora"][:8], "--output", "mine") == 0
    assert capsys.readouterr().out == f"{tmp_path}/mine: adapter, with its model card and tokenizer\n"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert {path.name for path in Path("mine").iterdir()} == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        "whichlora.json",
    }
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), "mine")
    for path in Path("mine").glob("*.*[!s]"):  # all but the weights
        assert str(Path(tiny_model).parent) not in path.read_text()


def test_a_merged_model_needs_no_peft(
    tracked: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, output = ids(tracked)["lora"], tmp_path / "new" / "model"
    assert call("--run_id", run_id, "--form", "merged", "--output", str(output)) == 0
    assert "logits differ from the adapter's by at most" in capsys.readouterr().out
    adapter = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    tokens = AutoTokenizer.from_pretrained(output)("Fatuma anaishi Kenya.", return_tensors="pt")
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(output)(**tokens).logits
        torch.testing.assert_close(found, adapted(**tokens).logits, atol=1e-4, rtol=1e-4)
    metadata = yaml.safe_load((output / "README.md").read_text().split("---\n")[1])
    assert (metadata["library_name"], metadata["base_model_relation"]) == ("transformers", "finetune")


def test_a_trial_s_adapter_gets_what_it_lacks(tracked: Path, tmp_path: Path) -> None:
    assert call("--run_id", ids(tracked)["trial"], "--output", str(tmp_path / "a")) == 0
    assert "| Swahili | atlas-nli | 6 |" in (tmp_path / "a" / "README.md").read_text()
    assert AutoTokenizer.from_pretrained(tmp_path / "a")("a")["input_ids"]


def test_an_adapter_of_an_earlier_version_is_completed(
    tracked: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(tracked, tmp_path / "home")
    with tracking_in(home):
        assert call_relocate(home, monkeypatch) == 0
        run_id = ids(home)["lora"]
        adapter = artifact_folder(connect().get_run(run_id).info.artifact_uri) / "adapter"
        assert home in adapter.parents
        for name in ("tokenizer.json", "tokenizer_config.json", "whichlora.json"):
            (adapter / name).unlink()
        (adapter / "README.md").write_text("[More Information Needed]")
        config = json.loads((adapter / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": "/home/somebody/tiny", "revision": None}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        assert call("--run_id", run_id, "--output", str(tmp_path / "a")) == 0
        config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == Path(tiny_model).name
        assert config["revision"].startswith("sha256-")
        assert "## Scores" in (tmp_path / "a" / "README.md").read_text()
        assert (tmp_path / "a" / "tokenizer.json").is_file()


def call_relocate(home: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    from whichlora.archive import main as archive

    monkeypatch.chdir(home)
    return int(archive(["relocate", "--force", "true"]))


def test_a_whole_model_is_exported_as_it_is_and_predicts_without_a_base(tracked: Path, tmp_path: Path) -> None:
    run_id = ids(tracked)["full"]
    assert call("--run_id", run_id, "--form", "merged", "--output", str(tmp_path / "m")) == 0
    logged = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter/model.safetensors")
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == Path(logged).read_bytes()
    AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    (tmp_path / "in.csv").write_text("premise,hypothesis\na,b\n")
    files = ("--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv"))
    assert predict(["--model", str(tmp_path / "m"), *files]) == 0


@pytest.mark.parametrize(
    ("run", "options", "error"),
    [
        ("0" * 32, {}, "there is no such run in the tracking database; `whichlora runs` lists the runs"),
        ("running", {}, "has not finished; wait for it"),
        ("base", {}, "must be a run or trial, but is a base"),
        ("launch", {}, "but is a launch; its result is the run "),
        ("foreign", {}, "is not of whichlora"),
        ("none", {}, "has no adapter among its artifacts: the variant none trains nothing"),
        ("bare", {}, "has no adapter among its artifacts: the study did not keep it"),
        ("full", {}, "form=adapter: the run has no adapter, but a whole model; use form=merged"),
        ("lora", {"form": "both"}, "form=both: allowed are adapter, merged"),
        ("lora", {"precision": "bf16"}, "precision=bf16: is about merged models"),
        ("lora", {"dry_run": "true"}, "dry_run=true: is about uploads; set push_to"),
        ("lora", {"dry_run": "yes"}, "dry_run=yes: allowed are true, false"),
        ("lora", {"push_to": "name"}, "push_to=name: must be organisation/name"),
        ("lora", {"push_to": "a/b/c"}, "push_to=a/b/c: must be organisation/name"),
        ("lora", {"push_to": "a/b c"}, "must be organisation/name"),
        (
            "lora",
            {"base": "no-such-folder", "form": "merged"},
            "no-such-folder: allowed are smollm2-135m, gemma3-270m, a folder",
        ),
        ("lora", {"base": "byte_model", "form": "merged"}, "is another model than"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    run: str,
    options: dict[str, str],
    error: str,
    tracked: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {
        name: request.getfixturevalue(value) if value == "byte_model" else value for name, value in options.items()
    }
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    output = tmp_path / "new" / "out"
    assert call("--run_id", ids(tracked).get(run, run), "--output", str(output), *words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert error in err
    assert "Traceback" not in err
    assert not output.exists()
    assert not list(tmp_path.rglob("*exporting*"))


def test_a_folder_with_files_is_never_touched(
    tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").touch()
    assert call("--run_id", ids(tracked)["lora"], "--output", str(tmp_path)) == 2
    assert call("--run_id", ids(tracked)["lora"], "--output", str(tmp_path / "notes.txt")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("already has files (notes.txt); choose a new or empty folder")
    assert second.endswith("must be a new or existing folder, but it or a parent is a file")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_moved_base_is_named_by_the_option(
    tracked: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    model = Path(tiny_model)
    hidden = model.rename(model.with_name("hidden"))
    try:
        run = ("--run_id", ids(tracked)["lora"], "--form", "merged", "--output", str(tmp_path / "m"))
        assert call(*run) == 2
        assert "is not found here: set base to a folder with the model of digest" in capsys.readouterr().err
        monkeypatch.chdir(tmp_path)
        assert call(*run, "--base", moved.name) == 0
    finally:
        hidden.rename(model)


@pytest.mark.slow
def test_an_adapter_of_a_4_bit_base_is_merged_into_full_precision(
    tracked: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = run_of(plan_of(tiny_model, variant="lora", quantization="nf4")).run_id
    assert call("--run_id", run_id, "--form", "merged", "--output", str(tmp_path / "m")) == 0
    assert "The run trained on weights in 4 bits, and these are in full precision" in capsys.readouterr().out
    adapter = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), adapter)
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "m")(tokens).logits
        torch.testing.assert_close(found, adapted(tokens).logits, atol=1e-3, rtol=1e-3)
    assert "quantization_config" not in json.loads((tmp_path / "m/config.json").read_text())
    assert "weights in 4 bits (NF4), but merged into those of full precision" in (tmp_path / "m/README.md").read_text()


@pytest.mark.slow
def test_files_of_a_killed_export_are_removed(tracked: Path, tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from whichlora.export.pipeline import _staged\n"
        f"with _staged(Path({str(tmp_path)!r}) / 'out', keep=True) as stage:\n"
        "    (stage / 'half').touch(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert killed.returncode == -9
    assert [path.name.endswith(".exporting") for path in tmp_path.iterdir()] == [True]
    assert call("--run_id", ids(tracked)["lora"], "--output", str(tmp_path / "out")) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub that keeps what is committed."""

    committed: ClassVar[dict[str, bytes]] = {}
    created: ClassVar[list[dict[str, Any]]] = []
    tokens: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.tokens.add(self.headers.get("Authorization", ""))
        address = f"http://{self.headers['Host']}/someone/mine"
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            self.answer({"url": address, "name": "someone/mine", "id": "someone/mine"})
        elif self.path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self.answer({"files": [{**f, "shouldIgnore": False, "oid": None} for f in files]})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.committed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer({"success": True, "commitOid": "0" * 40, "commitUrl": f"{address}/commit/{'0' * 40}"})
        else:
            self.answer({"errors": [], "warnings": []})

    def answer(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_dry_run_lists_what_would_be_uploaded(
    tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ("--run_id", ids(tracked)["lora"], "--output", str(tmp_path / "a"))
    assert call(*run, "--push_to", "someone/mine", "--dry_run", "true") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Not written (dry_run=true): {tmp_path}/a: adapter, with its model card and tokenizer"
    assert lines[1].startswith("Not uploaded (dry_run=true) to someone/mine: 6 files, ")
    assert not list(tmp_path.iterdir())
    assert call(*run) == 0  # what a dry run has checked is not in the way
    assert [line.split()[0] for line in lines[2:]] == sorted(path.name for path in (tmp_path / "a").iterdir())


def test_a_failed_upload_leaves_the_folder(tracked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Tests work offline."""
    run = ("--run_id", ids(tracked)["lora"], "--output", str(tmp_path / "a"))
    assert call(*run, "--push_to", "someone/mine") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: push_to=someone/mine: cannot be uploaded (")
    assert f"{tmp_path / 'a'} is complete" in error
    assert error.count("\n") == 1
    assert (tmp_path / "a" / "README.md").is_file()


@pytest.mark.slow
def test_a_folder_is_uploaded_whole_and_the_token_is_not_shown(tracked: Path, tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        token = "hf_secretsecretsecret"
        address = f"http://127.0.0.1:{server.server_port}"
        own = {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0"}
        run = ("--run_id", ids(tracked)["lora"], "--output", str(tmp_path / "a"), "--push_to", "someone/mine")
        done = subprocess.run(
            [sys.executable, "-m", "whichlora", "export", *run],
            env=os.environ | own | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert f"Uploaded: {address}/someone/mine/commit/" in done.stdout
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == Hub.committed
    assert [request["visibility"] for request in Hub.created] == ["private"]
    assert f"Bearer {token}" in Hub.tokens
    assert token not in done.stdout + done.stderr
