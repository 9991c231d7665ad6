"""The command `predict`: the predictions of the run, in the order and with the columns of the input."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from runs import PAIRS, plan_of, run_of

from whichlora.data.tasks.items import named_texts
from whichlora.export.command import main as export
from whichlora.masking import mask_output
from whichlora.predict import pipeline
from whichlora.predict.command import main
from whichlora.run.companions import write_needs
from whichlora.run.pipeline import trial
from whichlora.serving.predictor import Predictor
from whichlora.testing.runs import predictions_of, tracking_in
from whichlora.tracking.client import connect
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.runs import Tracker
from whichlora.tracking.sqlite import artifact_folder

P = ["p_entailment", "p_neutral", "p_contradiction"]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_model: str) -> Iterator[Path]:
    """A folder with a tracking database, the ids of its runs in `ids.json`, and the test items in `items.jsonl`."""
    folder = tmp_path_factory.mktemp("tracked")
    shutil.copy(empty_database, folder / "mlflow.db")
    with tracking_in(folder):
        plan = plan_of(tiny_model, variant="lora")
        ids = {"lora": run_of(plan).run_id, "pairs": run_of(plan_of(tiny_model, **PAIRS)).run_id}
        ids["trial"] = trial(plan, Tracker(connect(), "tests"), tags={"study": "s"}, keep=lambda _: False).run_id
        (folder / "ids.json").write_text(json.dumps(ids))
        rows = [{"id": item.id, **named_texts(item)} for item in plan.tests["tl"].items]
        (folder / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        yield folder


@pytest.fixture
def here(tracked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_id(tracked: Path, name: str = "lora") -> str:
    return str(json.loads((tracked / "ids.json").read_text())[name])


def items(tracked: Path) -> pd.DataFrame:
    return pd.DataFrame([json.loads(line) for line in (tracked / "items.jsonl").read_text().splitlines()])


def call(**options: object) -> int:
    return main([word for name, value in options.items() for word in (f"--{name}", str(value))])


def assert_logged(found: pd.DataFrame, tracked: Path) -> None:
    logged = predictions_of(run_id(tracked), "tl")
    assert list(found["predicted"]) == list(logged["predicted"])
    np.testing.assert_allclose(found[P].astype(float), logged[P], atol=1e-5)


WRITE = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True, force_ascii=False),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "csv.gz": lambda frame, path: frame.to_csv(path, index=False),
}
READ: dict[str, Any] = {
    "csv": pd.read_csv,
    "jsonl": lambda path: pd.read_json(path, lines=True),
    "parquet": pd.read_parquet,
}


@pytest.mark.parametrize(
    ("suffix", "output"),
    [
        ("csv", "csv"),
        ("tsv", "jsonl"),
        ("jsonl", "parquet"),
        ("json", "csv"),
        ("parquet", "parquet"),
        ("csv.gz", "jsonl"),
    ],
)
def test_predictions_are_those_of_the_run_in_every_format(
    suffix: str, output: str, tracked: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART", 4)
    frame = items(tracked).assign(number=range(9))
    WRITE[suffix](frame, here / f"in.{suffix}")
    assert call(run_id=run_id(tracked), input=f"in.{suffix}", output=f"new/out.{output}") == 0
    found = READ[output](here / "new" / f"out.{output}")
    assert list(found.columns) == [*frame.columns, "predicted", *P]
    pd.testing.assert_frame_equal(found[list(frame.columns)].astype(frame.dtypes), frame)
    if not (suffix in ("csv", "tsv", "csv.gz") and output == "jsonl"):  # cells of CSV are texts
        assert found["number"].dtype.kind == "i"
    assert_logged(found, tracked)
    assert [path.name for path in (here / "new").iterdir()] == [f"out.{output}"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_streams_are_read_and_written(
    suffix: str, tracked: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    WRITE[suffix](items(tracked), here / "in")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((here / "in").read_bytes())))
    assert call(run_id=run_id(tracked)[:8], input="-", batch_size=2) == 0
    assert_logged(READ[suffix](io.StringIO(capsys.readouterr().out)), tracked)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_texts_on_standard_output_are_those_of_the_input(
    suffix: str, tracked: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like a password in them stays, in UTF-8 whatever the terminal's encoding; messages are masked."""
    texts = {"premise": "See password=hunter22 for https://t0ken@host", "hypothesis": "a:b, Käse 東京"}
    WRITE[suffix](pd.DataFrame([texts]), here / f"in.{suffix}")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict"))
    mask_output()
    print("password=hunter22")
    assert call(run_id=run_id(tracked), input=f"in.{suffix}") == 0
    message, _, found = sys.stdout.buffer.getvalue().decode().partition("\n")
    assert message == "password=***"
    assert READ[suffix](io.StringIO(found))[list(texts)].to_dict("records") == [texts]


def test_a_model_is_named_in_six_ways(tracked: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = connect()
    logged = model_of_run(client, run_id(tracked))
    for _ in range(2):
        mlflow.register_model(logged.model_uri, "it's mine")
    assert export(["--run_id", run_id(tracked), "--output", str(here / "exported")]) == 0
    expected = None
    for model in ("it's mine", "it's mine@old", "models:/it's mine/2", "models:/it's mine@old", "exported", "logged"):
        if model == "it's mine@old":
            client.set_registered_model_alias("it's mine", "old", "1")
        if model == "logged":
            (here / "logged").symlink_to(artifact_folder(logged.artifact_location))
        base = {"base": logged.params["model"]} if model == "exported" else {}  # an export does not say where it is
        assert call(model=model, input=tracked / "items.jsonl", output="out.jsonl", **base) == 0, model
        text = (here / "out.jsonl").read_text()
        expected = expected or text
        assert text == expected


def test_the_champion_comes_before_the_latest_version(tracked: Path, here: Path, tmp_path: Path) -> None:
    from whichlora.predict.finding import _registered

    client = connect()
    logged = model_of_run(client, run_id(tracked))
    for _ in range(2):
        mlflow.register_model(logged.model_uri, "other")
    assert _registered(client, "other") == "models:/other/2"
    client.set_registered_model_alias("other", "champion", "1")
    assert _registered(client, "other") == "models:/other/1"


def test_columns_of_the_same_name_are_kept(tracked: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = items(tracked).assign(predicted="old", predicted_2="older", p_neutral=1)
    frame.to_parquet("in.parquet")
    assert call(run_id=run_id(tracked), input="in.parquet", output="out.parquet") == 0
    found = pd.read_parquet("out.parquet")
    assert list(found.columns) == [*frame.columns, "predicted_3", "p_entailment", "p_neutral_2", "p_contradiction"]
    assert set(found["predicted"]) == {"old"}
    assert "predicted is predicted_3, p_neutral is p_neutral_2" in capsys.readouterr().err


def test_values_of_json_are_in_csv_as_they_were(tracked: Path, here: Path) -> None:
    rows = [{"n": 1, "l": [1, "a"]}, {"n": None, "b": True}]
    Path("in.jsonl").write_text("".join(json.dumps({"premise": "a", "hypothesis": "b", **row}) + "\n" for row in rows))
    assert call(run_id=run_id(tracked), input="in.jsonl", output="out.csv") == 0
    lines = Path("out.csv").read_text().splitlines()
    assert lines[0].startswith("premise,hypothesis,n,l,b,predicted,")
    assert lines[1].startswith("a,b,1,\"[1, 'a']\",,")
    assert lines[2].startswith("a,b,,,True,")


def test_a_spreadsheet_runs_no_cell(tracked: Path, here: Path) -> None:
    Path("in.csv").write_text('premise,hypothesis,=note\n"=1+1","a\nb",-5\n')
    assert call(run_id=run_id(tracked), input="in.csv", output="out.csv") == 0
    header, row = Path("out.csv").read_text().splitlines()
    assert header.startswith("premise,hypothesis,'=note,predicted,")
    assert row.startswith("'=1+1,a b,-5,")


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Predictor, "load", load)


GOOD = '{"premise": "a", "hypothesis": "b"}\n'


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("in.csv", "premise,hypothesis\na,b\nc,\n", "line 3: hypothesis is empty"),
        ("in.csv", 'premise,hypothesis\n"a\nb",c\n ,d\n', "line 4: premise is empty"),
        ("in.csv", "premise,hypothessis\na,b\n", "has no column hypothesis; it has premise, hypothessis (did you mean"),
        ("in.csv", "premise,hypothesis,premise\na,b,c\n", "line 1: has the column premise twice"),
        ("in.csv", "premise,hypothesis,x,x\na,b,c,d\n", "line 1: has the column x twice"),
        ("in.csv", "premise,hypothesis\n", "has no rows"),
        ("in.csv", "", "has no rows"),
        ("in.csv", b"premise,hypothesis\na,b\n\xff,c\n", "line 3: is not UTF-8"),
        ("in.csv", b"premise,hypothesis,x\na,b,c\nd,e,\xff\n", "line 3: is not UTF-8"),
        ("in.csv", "premise,hypothesis\na,b\nc,d,e\n", "line 3: "),
        ("in.jsonl", GOOD + "\n[1]\n", "line 3: is not a JSON object"),
        ("in.jsonl", GOOD + "{\n", "line 2: is not JSON ("),
        ("in.jsonl", GOOD + '{"premise": "a"}\n', "line 2: hypothesis is missing"),
        ("in.jsonl", GOOD + '{"premise": ["a"], "hypothesis": "b"}\n', "line 2: premise is a list, not a text"),
        ("in.jsonl", GOOD + '{"premise": "a", "hypothesis": "b", "x": "\\ud800"}\n', "line 2: is not UTF-8"),
        ("in.json", "[]", "has no rows"),
        ("in.json", '"text"', "must be a list of records"),
        ("in.parquet", "PAR1", "cannot be read ("),
        ("in.csv.gz", "text", "cannot be read ("),
    ],
)
def test_a_bad_table_is_refused_before_the_model_is_loaded(
    name: str,
    content: str | bytes,
    error: str,
    tracked: Path,
    here: Path,
    no_model: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert call(run_id=run_id(tracked), input=name, output="out.csv") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: input={name}: {error}"), err
    assert err.count("\n") == 1
    assert [path.name for path in here.iterdir()] == [name]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "run_id=auto: must be given, or model"),
        ({"run_id": "lora", "model": "x"}, "cannot be given together with model"),
        ({"run_id": "lora", "input": "no.csv"}, "input=no.csv: there is no such file"),
        ({"run_id": "lora", "input": "."}, "input=.: is not a file"),
        ({"run_id": "lora", "input": "a.txt"}, "input=a.txt: must end in .csv, .tsv, .jsonl, "),
        ({"run_id": "lora", "output": "a.xlsx"}, "output=a.xlsx: must end in .csv, .jsonl, .parquet, or be -"),
        ({"run_id": "lora", "output": "in.jsonl"}, "output=in.jsonl: is the input, which would be lost"),
        ({"run_id": "lora", "output": "in.jsonl/x.csv"}, "output=in.jsonl/x.csv: must be a new or existing folder"),
        ({"run_id": "lora", "batch_size": "0"}, "batch_size=0: must be a whole number from 1"),
        ({"run_id": "lora", "base": "byte_model"}, "is another model than"),
        ({"run_id": "0" * 32}, "there is no such run in the tracking database; `whichlora runs` lists the runs"),
        ({"run_id": "pairs"}, "has no model that predicts texts: its task is one of word pairs"),
        ({"run_id": "trial"}, "has no adapter among its artifacts: the study did not keep it"),
        ({"model": "empty"}, "has no whichlora.json"),
        ({"model": "nobody"}, "model=nobody: is neither a folder nor a registered model; "),
        ({"model": "models:/nobody/1"}, "model=models:/nobody/1: cannot be read ("),
        ({"model": "models:/"}, "cannot be read ("),
    ],
)
def test_options_are_refused_in_one_line(
    options: dict[str, str],
    error: str,
    tracked: Path,
    here: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("empty").mkdir()
    Path("a.txt").touch()
    shutil.copy(tracked / "items.jsonl", "in.jsonl")
    given = {"input": "in.jsonl", "output": "out.csv", **options}
    if given.get("run_id") in ("lora", "pairs", "trial"):
        given["run_id"] = run_id(tracked, given["run_id"])
    if "base" in given:
        given["base"] = request.getfixturevalue(given["base"])
    assert call(**given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert error in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(here.glob("*out*"))
    assert Path("in.jsonl").read_text() == (tracked / "items.jsonl").read_text()


def test_a_trial_with_what_predictions_need_predicts(tracked: Path, here: Path, tiny_model: str) -> None:
    client = connect()
    folder = Path(client.download_artifacts(run_id(tracked), "adapter", str(here)))
    write_needs(plan_of(tiny_model, variant="lora"), folder)
    trial_id = client.create_run("1", tags={"whichlora.kind": "trial"}).info.run_id
    client.log_artifacts(trial_id, str(folder), "adapter")
    client.set_terminated(trial_id)
    assert call(run_id=trial_id, input=tracked / "items.jsonl", output="out.jsonl") == 0
    assert_logged(pd.read_json("out.jsonl", lines=True), tracked)


def test_an_alias_that_is_not_there_is_named(tracked: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect().create_registered_model("bare")
    for model, error in (
        ("bare@best", "has no alias best; it has none"),
        ("bare", "is registered, but has no version"),
    ):
        assert call(model=model, input=tracked / "items.jsonl") == 2
        assert capsys.readouterr().err == f"error: model={model}: {error}\n"


def test_a_failure_in_the_middle_leaves_the_former_output(
    tracked: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "PART", 4)
    predict, calls = Predictor.predict, []

    def failing(self: Predictor, frame: pd.DataFrame, *arguments: Any) -> pd.DataFrame:
        calls.append(len(frame))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(self, frame, *arguments)

    monkeypatch.setattr(Predictor, "predict", failing)
    for name in ("out.csv", "out.parquet"):
        calls.clear()
        Path(name).write_text("former")
        with pytest.raises(KeyboardInterrupt):
            call(run_id=run_id(tracked), input=tracked / "items.jsonl", output=name)
        assert Path(name).read_text() == "former"
    assert sorted(path.name for path in here.iterdir()) == ["out.csv", "out.parquet"]


def test_mixed_values_of_json_are_texts_in_parquet(tracked: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "PART", 1)
    rows = [{"a": None, "b": 1, "c": [1], "d": None}, {"a": 2, "b": "x", "c": None, "d": None}]
    texts = {"premise": "a", "hypothesis": "b"}
    Path("in.jsonl").write_text("".join(json.dumps({**texts, **row}) + "\n" for row in rows))
    assert call(run_id=run_id(tracked), input="in.jsonl", output="out.parquet") == 0
    found = pd.read_parquet("out.parquet", dtype_backend="pyarrow")
    assert found["b"].tolist() == ["1", "x"]
    assert found["a"].dtype == "int64[pyarrow]"
    assert found["c"].isna().tolist() == [False, True]
    assert list(found["c"][0]) == [1]


@pytest.mark.slow
def test_a_model_on_a_server_is_used_from_there(
    server: str, tracked: Path, here: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        for variant in ("none", "lora"):
            result = run_of(plan_of(tiny_model, variant=variant))
            mlflow.register_model(model_of_run(connect(), result.run_id).model_uri, variant)
            for options in ({"run_id": result.run_id}, {"model": variant}):
                assert call(input=tracked / "items.jsonl", output="out.jsonl", **options) == 0
                found = pd.read_json("out.jsonl", lines=True)
                assert list(found["predicted"]) == list(predictions_of(result.run_id, "tl")["predicted"])
        assert export(["--run_id", result.run_id, "--output", "exported"]) == 0
        assert Path("exported/tokenizer.json").is_file()
    finally:
        mlflow.set_tracking_uri(before)
