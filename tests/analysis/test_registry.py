"""`analyze register=NAME`: which model becomes the champion, its evidence, and when nothing is registered."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import designs
import mlflow
import pandas as pd
import pytest
from mlflow.entities import LoggedModel, LoggedModelStatus, Run
from mlflow.tracking import MlflowClient
from synthetic import log_design, log_run, spec

from analysis import analyze, registry
from analysis.evidence import COMPARED_FLOORS, headline
from analysis.measures.shallow_baselines import REACHED
from analysis.records import NotTestable, Record
from analysis.report.winner import decision_text, winner
from analysis.runs.pull import pull
from whichlora.errors import OptionError
from whichlora.tracking.client import connect, find_experiment
from whichlora.tracking.lookup import find_experiments


def records_of(means: dict[str, float], *, seed_sd: float = 0.3, margin: float = 1.0) -> list[Record]:
    """The records of an invented design in which methods differ by so many points."""
    table = designs.table(means, seed_sd=seed_sd, outcomes=("en", "tl"))
    table = table.assign(setting="one", variant=table["method"].str.lower(), arm="matched")
    costs = {"LoRA": 300.0, "DoRA*": 200.0, "VeRA": 100.0}
    found = [r for outcome in ("en", "tl") for r in headline(table, outcome, margin, "these")]
    name = "adapter/trainable_parameters"
    return found + [Record(outcome="tl", analysis="pareto", test=name, groups=(m,), effect=c) for m, c in costs.items()]


CLEAR = {"LoRA": 0.0, "VeRA": -5.0}


def runs_of(client: MlflowClient, experiment: str) -> list[Run]:
    found = find_experiment(client, experiment)
    assert found is not None
    return list(client.search_runs([found.experiment_id], "tags.`whichlora.kind` = 'run'", max_results=1000))


def give_models(experiment: str, variants: Sequence[str] = ("lora", "dora", "vera")) -> dict[str, LoggedModel]:
    """Log a validation score and a model for each run, and return the models by run.

    The higher the test score, the lower the validation score: whoever looks at the former chooses another run.
    """
    client, models = connect(), {}
    for run in runs_of(client, experiment):
        for role in ("en", "tl"):
            client.log_metric(run.info.run_id, f"validation/{role}/f1", 1 - run.data.metrics[f"test/{role}/f1"])
        if run.data.params["variant"] in variants:
            model = client.create_logged_model(run.info.experiment_id, name="adapter", source_run_id=run.info.run_id)
            models[run.info.run_id] = client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return models


def table_of(experiment: str) -> pd.DataFrame:
    client = connect()
    return pull(client, find_experiments(client, experiment)).table


def register(experiment: str, records: Sequence[Record], primary: str = "tl", language: str | None = None) -> str:
    table, how = table_of(experiment), {"primary": primary, "language": language}
    return registry.register(
        "nli", records, table, connect(), margin=1.0, origin={"experiment": experiment, "report": "r1"}, **how
    )


def version_tags(client: MlflowClient) -> dict[str, str]:
    """Return the tags of the champion's version, without their prefix."""
    tags = client.get_model_version_by_alias("nli", "champion").tags
    return {key.removeprefix("whichlora."): value for key, value in tags.items()}


@pytest.fixture
def small(store: Path) -> MlflowClient:
    """A client of a database with an experiment of three methods and two seeds."""
    log_design("small", languages=("sw",), ratios=(0.5,), seeds=(1, 2), items=0)
    return connect()


def test_the_winner_and_how_sure_it_is():
    best = winner(records_of(CLEAR), "tl", 1.0)
    assert best[:4] == ("LoRA", "best", (), ("LoRA", "VeRA"))
    assert best.score.startswith("mean 58.3 points")
    assert best.differences.startswith("LoRA has the highest mean; VeRA -")
    assert "significantly better than every other method" in best.advice
    close = {"LoRA": 0.0, "DoRA*": -0.1, "VeRA": -9.0}
    near = winner(records_of(close), "tl", 1.0)
    assert near[:3] == ("DoRA*", "within-margin", ("LoRA",))  # it has fewer parameters
    undecided = winner(records_of(close, seed_sd=2.0, margin=0.01), "tl", 0.01)
    assert undecided.decision == "not-distinguished"
    assert {undecided.method, *undecided.rivals} == {"LoRA", "DoRA*"}
    assert undecided.advice.startswith("No method can be recommended yet ")
    assert decision_text(undecided, 0.01) == f"not distinguished from {undecided.rivals[0]}"
    with pytest.raises(NotTestable, match="cannot be compared"):
        winner([], "tl", 1.0)
    low = [
        Record(outcome="tl", analysis=COMPARED_FLOORS, test=REACHED, groups=(name,), effect=90.0)
        for name in ("LoRA", "VeRA")
    ]
    with pytest.raises(NotTestable, match="not above the shallow baselines"):
        winner([*records_of({"LoRA": 0.0, "VeRA": -0.1}), *low], "tl", 1.0)


def test_the_champion_is_the_winners_run_with_the_best_validation_score(small: MlflowClient) -> None:
    models = give_models("small")
    sentence = register("small", records_of(CLEAR))
    assert sentence.startswith("Registered LoRA as models:/nli@champion, version 1: mean 58.3 points")
    ending = f"The model is that of LoRA in sw at ratio 0.5, seed {version_tags(small)['seed']}."
    assert sentence.endswith(f"; significantly better than every other method. {ending}")
    version = small.get_model_version_by_alias("nli", "champion")
    run = small.get_run(str(version.run_id))
    assert version.source == f"models:/{models[run.info.run_id].model_id}"
    assert run.data.params["variant"] == "lora"
    lowest = min(r.data.metrics["test/tl/f1"] for r in runs_of(small, "small") if r.data.params["variant"] == "lora")
    assert run.data.metrics["test/tl/f1"] == lowest  # of the best validation score
    tags = version_tags(small)
    expected = {"experiment": "small", "report": "r1", "method": "LoRA", "decision": "best", "primary": "tl"}
    expected |= {"not_distinguished_from": "none", "compared": "LoRA, VeRA", "run": run.info.run_id, "margin": "1"}
    assert tags.items() >= expected.items()
    assert tags["test_score"] == f"test/tl/f1 {lowest:.3f}"
    assert float(tags["validation_score"]) == pytest.approx(1 - lowest, abs=1e-4)

    register("small", records_of(CLEAR))  # the same evidence
    assert len(small.search_model_versions("name = 'nli'")) == 1
    register("small", records_of(CLEAR), primary="en")
    assert int(small.get_model_version_by_alias("nli", "champion").version) == 2


def test_the_model_is_of_one_cell_that_is_not_chosen_by_score(store: Path) -> None:
    """The lower a test score, the higher the validation score: Urdu looks easiest, and English at the highest ratio."""
    f1 = {("sw", 0.2): 0.2, ("sw", 0.5): 0.5, ("sw", 1.0): 0.4, ("ur", 0.2): 0.1, ("ur", 0.5): 0.1}
    for variant in ("lora", "vera"):
        for (language, ratio), score in f1.items():
            for seed in (1, 2):
                known = {"en": 0.9 - ratio / 2, "tl": score + seed / 1000}
                log_run(spec(variant, language=language, tl_ratio=ratio, seed=seed), "cells", f1=known, items=0)
    give_models("cells")
    client, records = connect(), records_of(CLEAR)
    records += [replace(record, outcome="mean") for record in records if record.outcome == "tl"]
    expected = {
        ("tl", None): ("sw", "1", "1"),
        ("tl", "ur"): ("ur", "0.5", "1"),
        ("en", None): ("sw", "0.2", "1"),
        ("mean", None): ("sw", "0.5", "1"),
        ("mean", "ur"): ("ur", "0.5", "1"),
    }
    for (primary, language), cell in expected.items():
        sentence = register("cells", records, primary, language)
        assert tuple(version_tags(client)[key] for key in ("language", "tl_ratio", "seed")) == cell
        assert f"LoRA in {cell[0]} at ratio {cell[1]}, seed 1." in sentence
    assert sentence.endswith(" Other languages (register_language): sw.")
    with pytest.raises(OptionError, match="register_language=xx: must be a language of the runs: sw, ur"):
        registry.check_registrable("nli", table_of("cells"), "xx")


def test_a_cell_in_which_nothing_was_learnt_is_passed_over(store: Path) -> None:
    for variant, language, seed in itertools.product(("lora", "vera"), ("sw", "ur"), (1, 2)):
        known = {"en": 0.9, "tl": {"sw": 0.5, "ur": 0.95}[language] + seed / 1000}  # the floor is 0.7
        log_run(spec(variant, language=language, seed=seed), "floored", f1=known, items=0)
    give_models("floored")
    register("floored", records_of(CLEAR))
    assert version_tags(connect())["language"] == "ur"
    with pytest.raises(OptionError, match=r"register_language=sw: must be a language in which .* LoRA.*: ur"):
        register("floored", records_of(CLEAR), language="sw")


def test_without_a_model_or_a_validation_score_nothing_is_registered(small: MlflowClient) -> None:
    records = records_of(CLEAR)
    with pytest.raises(OptionError, match=r"no run of LoRA in sw at ratio 0.5 has a validation score \(tl\), by"):
        register("small", records)
    give_models("small", ("vera",))
    with pytest.raises(OptionError, match="has no logged model: it was made by an older version"):
        register("small", records)
    with pytest.raises(OptionError, match="register=nli: there is no winner: the methods cannot be compared"):
        register("small", [])
    from_files = table_of("small").assign(artifact_uri=float("nan"))
    with pytest.raises(OptionError, match="come from files, not from runs"):
        registry.register("nli", records, from_files, small, primary="tl", margin=1.0, origin={})
    log_run(spec("dora", train_size=60), "small", items=0)
    with pytest.raises(OptionError, match="the experiment compares methods in 2 settings"):
        registry.check_registrable("nli", table_of("small"))
    assert not small.search_registered_models()


def test_bad_names_are_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    for name, reason in (("a:b", "must not have a colon"), ("a/b", "must be a name without slashes")):
        assert analyze.main(["--experiment", "x", "--register", name]) == 2
        assert capsys.readouterr().err.startswith(f"error: register={name}: {reason}")
    assert analyze.main(["--results", __file__, "--register", "nli"]) == 2
    assert capsys.readouterr().err.startswith("error: register=nli: needs an experiment")
    assert analyze.main(["--experiment", "x", "--register_language", "sw"]) == 2
    assert capsys.readouterr().err.startswith("error: register_language=sw: needs register")


@pytest.mark.slow
def test_the_command_registers_on_a_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(server)
    log_design("served", effects={"lora": 0.2, "dora": -0.2, "vera": -0.1}, items=0, ratios=(0.5,))
    command = ["--experiment", "served", "--register", "nli", "--output", "out"]
    assert analyze.main(command) == 2
    printed = capsys.readouterr()
    error = printed.err.splitlines()[-1]
    assert error.startswith("error: register=nli: no run of LoRA in sw at ratio 0.5 has a validation score")
    assert Path("out/report.html").is_file()  # the report is not lost
    shutil.rmtree("out")
    models = give_models("served")
    assert analyze.main(command) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("Registered LoRA as models:/nli@champion, version 1")
    assert said.endswith(" Other languages (register_language): ur.")
    version = MlflowClient().get_model_version_by_alias("nli", "champion")
    assert version.source == f"models:/{models[str(version.run_id)].model_id}"
    assert MlflowClient().get_run(version.tags["whichlora.report"]).data.tags["whichlora.kind"] == "report"
