"""What lies beside an adapter tells others where its base is, how it scores, and how to load and train it."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from runs import plan_of, run_of
from transformers import AutoTokenizer

from analysis.runs.adapter_sizes import join_sizes
from whichlora.cards.facts import DataSet, RunFacts, read_facts
from whichlora.cards.model_card import Form, escaped, model_card
from whichlora.cards.rerun import other_settings
from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.data.tasks.items import named_texts
from whichlora.models.loading import ModelSource, load_tokenizer, locate
from whichlora.models.published import PublishedBase, published, write_notice
from whichlora.predict.command import main as predict
from whichlora.run.summary import Result
from whichlora.testing.runs import tracking_in
from whichlora.text_tables import POINTS
from whichlora.tracking.run_log import RunLog
from whichlora.training.adapter import ADAPTER_CONFIG, name_base

HUB_BASE = PublishedBase(name="someone/tiny", revision="0" * 40, on_hub=True, licence="mit")


@pytest.fixture(scope="module")
def logged(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, tiny_model: str
) -> tuple[Plan, Result, Path]:
    """A run's plan, its result, and its folder `adapter/`."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(empty_database, folder / "mlflow.db")
    with tracking_in(folder):
        plan = plan_of(tiny_model, variant="dora", language="sw,hi", seed=3)
        result = run_of(plan)
        found = mlflow.artifacts.download_artifacts(run_id=result.run_id, dst_path=str(folder / "adapter-of-run"))
        return plan, result, Path(found) / "adapter"


def card_of(folder: Path) -> tuple[dict[str, object], str]:
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_no_file_beside_the_weights_has_a_path_of_this_machine(logged: tuple[Plan, Result, Path]) -> None:
    plan, _, folder = logged
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    assert config["base_model_name_or_path"] == Path(plan.source.name_or_path).name
    assert config["revision"] == f"sha256-{plan.spec.model_digest}"
    for path in folder.iterdir():
        if path.suffix != ".safetensors" and path.name != "whichlora.json":  # which says where the base was
            assert str(Path(plan.source.name_or_path).parent) not in path.read_text(), path.name


def test_the_card_has_the_scores_of_the_run(logged: tuple[Plan, Result, Path]) -> None:
    _, result, folder = logged
    metadata, text = card_of(folder)
    assert (metadata["library_name"], metadata["language"]) == ("peft", ["en", "sw", "hi"])
    assert {"whichlora", "dora", "atlas-nli", "synthetic"} == set(metadata["tags"])  # type: ignore[call-overload]
    m = result.metrics
    best = max(value for key, value in m.items() if key.startswith("floor/tl/"))
    interval = f"{100 * m['test/tl/f1_low']:.1f}-{100 * m['test/tl/f1_high']:.1f}"
    score, base, gain = (100 * m[name] for name in ("test/tl/f1", "base/tl/f1", "gain/tl"))
    row = f"| 9 | {score:.1f} | {interval} | {base:.1f} | {POINTS.gain(gain / 100)} | {100 * best:.1f} |"
    assert row in text
    for language, code in (("Swahili", "sw"), ("Hindi", "hi")):
        assert f"| {language} | atlas-nli |  | {100 * m[f'test/tl/{code}/f1']:.1f} |" in text
    assert "**synthetic**" in text


def test_the_command_of_the_card_gives_the_same_spec(logged: tuple[Plan, Result, Path]) -> None:
    plan, _, folder = logged
    line = next(line for line in card_of(folder)[1].splitlines() if line.startswith("    whichlora run "))
    words = shlex.split(line)[2:]
    given = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    given["model"] = plan.source.name_or_path  # the card has the name of the folder
    again = resolve(parse_options({**{name: default for name, (default, _) in RUN_OPTIONS.items()}, **given}))
    assert again.spec.fingerprint == plan.spec.fingerprint


def test_the_tokenizer_beside_the_adapter_is_that_of_the_base(logged: tuple[Plan, Result, Path]) -> None:
    plan, _, folder = logged
    tokenizer, text = AutoTokenizer.from_pretrained(folder), plan.encoder().task.prompt(plan.tests["tl"].items[0])
    assert tokenizer(text)["input_ids"] == plan.tokenizer(text)["input_ids"]
    assert tokenizer.pad_token == plan.tokenizer.pad_token


def test_code_of_the_card_loads_the_adapter(
    logged: tuple[Plan, Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _, folder = logged
    (tmp_path / Path(plan.source.name_or_path).name).symlink_to(plan.source.name_or_path)
    lines = card_of(folder)[1].partition("## Use")[2].partition("Prompts")[0].splitlines()
    code = "\n".join(line.removeprefix("    ") for line in lines).replace('folder = "."', f"folder = {str(folder)!r}")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert type(names["model"]).__name__ == "PeftModelForCausalLM"


def test_the_command_of_the_card_predicts_with_the_base_beside_it(
    logged: tuple[Plan, Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _, folder = logged
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / Path(plan.source.name_or_path).name).symlink_to(plan.source.name_or_path)
    stored = json.loads((tmp_path / "whichlora.json").read_text())
    stored["base"]["folder"] = "/nowhere/of/mine"  # on the machine of another user
    (tmp_path / "whichlora.json").write_text(json.dumps(stored))
    pd.DataFrame([named_texts(item) for item in plan.tests["tl"].items]).to_csv(tmp_path / "texts.csv", index=False)
    monkeypatch.chdir(tmp_path)
    line = next(line for line in card_of(tmp_path)[1].splitlines() if line.startswith("    whichlora predict "))
    assert predict([*shlex.split(line)[2:], "--output", "labels.csv"]) == 0
    assert len(pd.read_csv("labels.csv")) == 9


def test_the_card_has_a_command_that_predicts_only_where_that_works() -> None:
    folder = PublishedBase(name="my model", revision="r", on_hub=False, licence=None)
    for base, form, predicts, given in (
        (HUB_BASE, "adapter", True, ""),
        (folder, "adapter", True, " --base './my model'"),
        (folder, "model", True, ""),  # it is whole
        (folder, "adapter", False, None),  # a task whose items no table has
        (folder, "merged", False, None),
    ):
        text = model_card(facts(), base, form=form, predicts=predicts)  # type: ignore[arg-type]
        line = f"    whichlora predict --model .{given} --input texts.csv\n"
        assert line in text if given is not None else "whichlora predict" not in text


def facts(**changes: object) -> RunFacts:
    data = DataSet(context="test/en", task="t", items=3, languages=("en",), hub="someone/data", folder=None)
    values = {
        "run_id": "0" * 32,
        "kind": "run",
        "params": {"variant": "lora", "task": "t", "language": "sw", "rank": "8"},
        "metrics": {"test/en/f1": 0.5},
        "data": {"test/en": data},
    }
    return RunFacts(**{**values, **changes})  # type: ignore[arg-type]


def test_names_from_outside_change_neither_the_table_nor_the_page() -> None:
    evil = 'a|b\n<script> `x` [y](z) "q" # h'
    params = {"variant": evil, "task": evil, "language": evil, "task_option": f"/x/{evil}"}
    data = DataSet(context="test/en", task=evil, items=3, languages=(evil,), hub=None, folder=f"/home/me/{evil}")
    base = PublishedBase(name=evil, revision="r", on_hub=False, licence=evil)
    text = model_card(facts(params=params, data={"test/en": data, "train": data}), base, form="adapter", predicts=True)
    shown = [line for line in text.split("---\n", 2)[2].splitlines() if not line.startswith("    ")]  # but for code
    table = [line for line in shown if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "<script" not in "".join(shown)
    assert not any(line.startswith("<script") for line in text.splitlines())
    assert "/home/me" not in text
    assert escaped("a\nb") == "a b"


def test_metadata_name_base_data_and_licence_on_the_hub() -> None:
    metadata = yaml.safe_load(model_card(facts(), HUB_BASE, form="merged", predicts=False).split("---\n")[1])
    assert (metadata["base_model"], metadata["license"]) == ("someone/tiny", "mit")
    assert (metadata["datasets"], metadata["library_name"]) == (["someone/data"], "transformers")


def test_a_trial_shows_validation_scores_and_a_run_of_an_earlier_version_what_is_known() -> None:
    validation = DataSet(context="validation/tl", task="t", items=7, languages=("sw",), hub=None, folder=None)
    trial = facts(kind="trial", metrics={"validation/tl/f1": 0.25}, data={"validation/tl": validation})
    assert "| Swahili | t | 7 | 25.0 |" in model_card(trial, HUB_BASE, form="adapter", predicts=True)
    assert "No scores are known." in model_card(facts(data={}, params={}), HUB_BASE, form="adapter", predicts=True)


def test_settings_that_no_option_sets_are_named() -> None:
    own = {"variant": "adalora", "variant_options": json.dumps({"init_rank": 99, "unknown": 1})}
    assert other_settings(facts(params=own)) == {"init_rank": 99, "unknown": 1}


def test_the_packaged_model_is_named_by_its_origin_with_a_note() -> None:
    base = published(ModelSource(name="smollm2-135m", name_or_path="/cache/x", revision=None, digest="d"))
    assert (base.name, base.revision, base.licence) == ("HuggingFaceTB/SmolLM2-135M-Instruct", None, "apache-2.0")
    assert "near those on the hub, but not equal" in model_card(facts(), base, form="adapter", predicts=True)


@pytest.mark.parametrize("form", ["adapter", "model", "merged"])
def test_what_is_made_from_gemma_carries_the_notice_and_the_terms(tmp_path: Path, form: Form) -> None:
    cached = tmp_path / "cached"
    cached.mkdir()
    (cached / "GEMMA_TERMS.html").write_text("the terms")
    base = published(ModelSource(name="gemma3-270m", name_or_path=str(cached), revision=None, digest="d"))
    assert (base.name, base.licence) == ("google/gemma-3-270m", "gemma")
    write_notice(tmp_path, base, form)
    sentence = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    notice = (tmp_path / "NOTICE").read_text()
    assert sentence in notice.splitlines()
    assert "Prohibited Use Policy" in notice
    assert ("were modified" in notice) == (form != "adapter")
    assert (tmp_path / "GEMMA_TERMS.html").read_text() == "the terms"
    card = model_card(facts(), base, form=form, predicts=True)
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "gemma"
    assert sentence in card
    assert "pass on the files NOTICE and GEMMA\\_TERMS.html" in card
    assert "`python -m whichlora.models.packaged gemma3-270m`" in card


def test_the_notice_is_that_of_the_licence_wherever_the_model_is_from(tmp_path: Path) -> None:
    write_notice(tmp_path, HUB_BASE, "adapter")
    assert not list(tmp_path.iterdir())
    write_notice(tmp_path, replace(HUB_BASE, licence="gemma"), "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["NOTICE"]


def test_a_gguf_file_is_named_without_its_path() -> None:
    base = PublishedBase(name="my.gguf", revision="sha256-d", on_hub=False, licence=None, is_gguf=True)
    card = model_card(facts(), base, form="adapter", predicts=True)
    assert 'from_pretrained(".", gguf_file="my.gguf", dtype="float32")' in card
    assert "predict --model . --base ./my.gguf" in card
    assert "The base model is a GGUF file" in card


def test_a_model_of_the_hub_is_named_by_id_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ModelSource(name="a/b", name_or_path="a/b", revision="1" * 40, digest=f"a/b@{'1' * 40}")
    assert published(source) == PublishedBase(name="a/b", revision="1" * 40, on_hub=True, licence=None)  # offline
    (tmp_path / ADAPTER_CONFIG).write_text('{"r": 8, "revision": null}')
    name_base(tmp_path, source)
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert config == {"r": 8, "base_model_name_or_path": "a/b", "revision": "1" * 40}
    card = model_card(facts(), published(source), form="adapter", predicts=True)
    assert f'from_pretrained("a/b", revision="{"1" * 40}", dtype="float32")' in card


def test_the_licence_of_a_folder_is_that_of_its_card(tiny_model: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "tiny")
    assert published(locate(str(folder))).licence is None
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    assert published(locate(str(folder))).licence == "mit"
    (folder / "README.md").write_text("---\n{license: [\n---\n")
    assert published(locate(str(folder))).licence is None


def test_reports_count_the_weights_and_not_what_lies_beside_them(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, variant="vera"))
    rows = pd.DataFrame({"variant": ["vera"], "run_id": [result.run_id], "setting": ["s"], "method": ["m"]})
    path = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter/adapter_model.safetensors")
    assert join_sizes(mlflow.MlflowClient(), rows)["adapter/size_mb"].tolist() == [Path(path).stat().st_size / 1e6]


def test_a_whole_model_has_card_and_tokenizer_too(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, variant="full"))
    folder = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter"))
    assert card_of(folder)[0]["library_name"] == "transformers"
    assert (
        AutoTokenizer.from_pretrained(folder)("a")["input_ids"] == load_tokenizer(locate(tiny_model))("a")["input_ids"]
    )
    assert read_facts(mlflow.MlflowClient().get_run(result.run_id)).whole_model
    assert str(Path(tiny_model).parent) not in (folder / "config.json").read_text()


def test_a_run_that_reuses_an_adapter_writes_its_own_card_once(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also if it dies between the card and the end: the card is no damage to the adapter."""
    first = run_of(plan_of(tiny_model, tl_ratio=0, language="sw"))
    plan, log_artifacts = plan_of(tiny_model, tl_ratio=0, language="hi"), RunLog.artifacts

    def dying(log: RunLog, folder: Path, artifact_path: str | None = None) -> None:
        if artifact_path == "adapter":
            raise OSError("no space")
        log_artifacts(log, folder, artifact_path)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "artifacts", dying)
        with pytest.raises(OSError, match="no space"):
            run_of(plan)
    capsys.readouterr()
    second = run_of(plan)
    assert "repeated" not in capsys.readouterr().err
    for result, language in ((first, "Swahili"), (second, "Hindi")):
        folder = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter"))
        text = card_of(folder)[1]
        assert f"MLflow run `{result.run_id}`" in text
        assert f"| {language} | atlas-nli | 9 |" in text
        assert "- languages: English\n" in text
        assert language[:2].lower() in json.loads((folder / "whichlora.json").read_text())["languages"]
