"""Runs are pulled whole, named, merged and counted, and nothing is left out in silence."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from synthetic import log_design, log_run, spec

from analysis.runs import predictions
from analysis.runs.pull import pull
from analysis.runs.tidy import Runs
from whichlora.errors import OptionError
from whichlora.tracking.client import connect, experiment_id
from whichlora.tracking.lookup import find_experiments


def pulled(*experiments: str) -> Runs:
    client = connect()
    return pull(client, find_experiments(client, ",".join(experiments)))


def test_what_trained_together_has_no_time_or_memory_of_its_own(store):
    log_run(spec("lora"), "e", items=0, more={"train/packed": 4.0, "gpu/energy_j": 5.0})
    log_run(spec("dora"), "e", items=0)
    client = connect()
    found = pull(client, find_experiments(client, "e"))
    table = found.table.drop_duplicates("run_id").set_index("variant")
    for cost in ("train/seconds", "train/examples_per_second", "host/memory_max_mb", "gpu/energy_j"):
        assert math.isnan(table.loc["lora", cost])
    assert table.loc["dora", "train/seconds"] > 0
    assert table.loc["lora", "adapter/trainable_parameters"] > 0
    assert "1 run trained in one pass with others (pack): their time and memory are not reported." in found.design.notes


def test_the_table_has_every_result_once(full):
    found = pulled("full")
    table = found.table
    assert list(table.columns[:11]) == [
        *("setting", "method", "task", "model", "language", "tl_ratio", "seed", "outcome", "f1", "adapter", "run_id")
    ]
    tl, en = (table[table["outcome"] == outcome] for outcome in ("tl", "en"))
    assert len(tl) == 3 * 2 * 2 * 3
    # At ratio 0 one adapter serves both languages, and its English result is one result.
    assert len(en) == 3 * (1 + 2) * 3
    assert set(en.loc[en["tl_ratio"] == 0, "language"]) == {""}
    assert found.design.shared_english == 9
    assert found.design.adapters == 27 == table["adapter"].nunique()
    assert set(table["method"]) == {"LoRA", "DoRA*", "VeRA"}
    assert not found.design.missing
    assert any("DoRA*" in note for note in found.design.notes)
    run = connect().get_run(tl.iloc[0]["run_id"])
    assert tl.iloc[0]["f1"] == run.data.metrics["test/tl/f1"]
    assert tl.iloc[0]["base_f1"] == run.data.metrics["base/tl/f1"]


def test_more_runs_than_a_page_are_all_pulled(full, monkeypatch):
    whole = pulled("full").table
    monkeypatch.setattr("whichlora.tracking.client._PAGE", 7)
    assert pulled("full").table.equals(whole)


def test_what_is_not_a_result_is_listed(store):
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1, 2), items=0)
    client = connect()
    place = experiment_id(client, "e")
    lost = log_run(spec("vera", language="ur", tl_ratio=0.5, seed=3), "e", status="FAILED")
    alive = log_run(spec("lora", language="ur", tl_ratio=0.5, seed=3), "e", status="RUNNING")
    bare = log_run(spec("lora", language="sw", tl_ratio=0.5, seed=3), "e", items=0, f1={"en": 0.5, "tl": np.nan})
    client.set_terminated(client.create_run(place, tags={"whichlora.kind": "base"}).info.run_id)
    client.create_run(place)
    design = pulled("e").design
    assert design.runs == 2 * 2 * 2 * 2 + 3
    assert design.others == {"base": 1, "of another program": 1}
    assert [(i.run_id, i.text) for i in design.failed] == [(lost, "ProofError: module q_proj gets no gradient")]
    assert [(i.run_id, i.text) for i in design.unfinished] == [(alive, "running")]
    assert [(i.run_id, i.text) for i in design.incomplete] == [(bare, "lacks test/tl/f1")]
    assert not design.missing  # no result has seed 3


def test_missing_cells_are_found(store):
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1, 2), items=0)
    log_run(spec("lora", language="ur", tl_ratio=0.5, seed=3), "e", items=0)
    missing = {(m.method, m.language, m.tl_ratio): m.seeds for m in pulled("e").design.missing}
    assert ("LoRA", "ur", 0.5) not in missing
    assert missing["VeRA", "sw", 0.0] == (3,)
    assert len(missing) == 7


def test_a_run_done_twice_counts_once_and_the_later_one_is_used(store):
    first = log_run(spec(), "one", items=0, f1={"en": 0.5, "tl": 0.5})
    second = log_run(spec(), "two", items=0, f1={"en": 0.5, "tl": 0.6})
    found = pulled("one", "two")
    assert found.design.used == (second,)
    (issue,) = found.design.duplicates
    assert issue.run_id == first
    assert "tl 0.5000 there and 0.6000 in the one used" in issue.text


def test_the_same_options_on_other_data_count_once(store):
    log_run(spec(train_digest="old"), "e", items=0)
    second = log_run(spec(train_digest="new"), "e", items=0)
    found = pulled("e")
    assert found.design.used == (second,)
    assert "other data" in found.design.duplicates[0].text


def test_identical_methods_are_merged_and_said_so(store):
    log_design("e", methods=[("lora", "matched"), ("lora", "recommended"), ("vera", "matched")], items=0)
    found = pulled("e")
    assert set(found.table["method"]) == {"LoRA", "VeRA"}
    (sentence,) = found.design.merged
    assert "lora matched and lora recommended" in sentence
    assert "all 12 cells" in sentence
    assert len(found.table) == 2 * (12 + 9)


def test_arms_are_named_only_where_needed(store):
    log_design("e", methods=[("lora", "matched"), ("dora", "matched")], items=0, seeds=(1,))
    log_design(
        "e", methods=[("lora", "recommended"), ("dora", "recommended")], items=0, seeds=(1,), fields={"rank": 16}
    )
    log_design("e", methods=[("my-own", "matched")], items=0, seeds=(1,))
    assert set(pulled("e").table["method"]) == {"LoRA (matched)", "LoRA (recommended)", "DoRA", "DoRA*", "my-own"}


def test_values_that_differ_in_a_cell_are_part_of_the_name(store):
    for rank in (16, 32):
        for layers in (range(22, 28), (30, 31)):
            fields = {"rank": rank, "layers": tuple(layers)}
            log_design("e", methods=[("lora", "matched")], seeds=(1,), items=0, fields=fields)
    assert set(pulled("e").table["method"]) == {
        f"LoRA, rank {rank}, layers {layers}" for rank in (16, 32) for layers in ("22-27", "30-31")
    }


def test_values_that_differ_between_cells_are_told(store):
    for language, rate in (("sw", 0.001), ("ur", 0.002)):
        fields = {"learning_rate": rate}
        log_design("e", methods=[("lora", "tuned")], languages=[language], items=0, fields=fields)
    found = pulled("e")
    assert set(found.table["method"]) == {"LoRA"}
    assert any("several values of learning rate between cells: 0.001, 0.002" in note for note in found.design.notes)


def test_models_and_sizes_are_settings_of_their_own(store):
    log_run(spec(), "e", items=0)
    log_run(spec(model="/models/Llama-3.1-8B", model_digest="0"), "e", items=0)
    log_run(spec(train_size=2000), "e", items=0)
    log_run(spec(model="/elsewhere/smollm2-135m", seed=2), "e", items=0)  # the same model, by its digest
    assert set(pulled("e").table["setting"]) == {
        "atlas-nli, Llama-3.1-8B",
        "atlas-nli, smollm2-135m, train_size 600",
        "atlas-nli, smollm2-135m, train_size 2000",
    }


def test_runs_with_nothing_but_the_needed_fields_will_do(store):
    client = connect()
    place = experiment_id(client, "foreign")
    for variant in ("a", "b"):
        run = client.create_run(place, tags={"whichlora.kind": "run"})
        fields = {
            "variant": variant,
            "layers": "all",
            "variant_options": "few",
            "arm": "x",
            "task": "t",
            "model": "m",
            "language": "de",
            "tl_ratio": "0",
            "seed": "1",
        }
        for key, value in fields.items():
            client.log_param(run.info.run_id, key, value)
        for outcome in ("en", "tl"):
            client.log_metric(run.info.run_id, f"test/{outcome}/f1", 0.5)
        client.set_terminated(run.info.run_id)
    found = pulled("foreign")
    assert len(found.table) == 4
    assert set(found.table["method"]) == {"a", "b"}
    assert found.design.adapters == 2
    frame, issues = predictions.fetch(found.table)
    assert frame.empty
    assert len(issues) == 4


def test_an_unknown_experiment_lists_those_there_are(full):
    with pytest.raises(
        OptionError,
        match=r"experiment=ful: no such experiment; existing are Default, bare, full \(did you mean 'full'\?\)",
    ):
        pulled("ful")
    with pytest.raises(OptionError, match=r"^experiment=full,bar: has bar; no such experiment; existing are .*'bare'"):
        pulled("full,bar")


def test_an_experiment_without_runs_is_an_empty_table(full):
    found = pulled("Default")
    assert found.table.empty
    assert found.design.runs == 0


def test_predictions_are_those_of_the_runs(full):
    table = pulled("full").table
    frame, issues = predictions.fetch(table)
    assert not issues
    assert len(frame) == 60 * len(table)
    means = frame.groupby(["run_id", "outcome"], observed=True)["correct"].mean()
    for row in table.to_dict("records"):
        assert means[row["run_id"], row["outcome"]] == pytest.approx(row["f1"], abs=1e-6)
    assert frame["confidence"].between(0.39, 1).all()
    right = frame["correct"] == 1
    assert (frame.loc[right, "p_gold"] == frame.loc[right, "confidence"]).all()
    assert set(frame.loc[(frame["outcome"] == "en") & (frame["tl_ratio"] == 0), "language"]) == {""}


def test_written_answers_get_their_token_f1(store):
    import pandas as pd

    run_id = log_run(spec(), "e", items=0)
    answers = pd.DataFrame(
        {"id": ["1", "2", "3"], "gold": ["in Dar es Salaam", "x", "y"], "predicted": ["Dar", "X.", None]}
    )
    client = connect()
    for outcome in ("en", "tl"):
        answers.to_parquet(f"{outcome}.parquet")
        client.log_artifact(run_id, f"{outcome}.parquet", "predictions")
    frame, _ = predictions.fetch(pulled("e").table)
    assert frame.loc[frame["outcome"] == "tl", "correct"].tolist() == pytest.approx([0.4, 1, 0])
    assert frame["p_gold"].isna().all()


def test_a_remote_store_is_asked_once(full, tmp_path, monkeypatch):
    import mlflow

    table = pulled("full").table.head(3)
    expected, _ = predictions.fetch(table)
    remote = table.assign(artifact_uri="runs:/" + table["run_id"])
    asked = []
    download = mlflow.artifacts.download_artifacts
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda **o: asked.append(o) or download(**o))
    for _ in range(2):
        frame, issues = predictions.fetch(remote, cache=tmp_path / "cache")
        assert not issues
        assert frame.equals(expected)
    assert len(asked) == 3


def test_params_are_read_as_the_project_logs_them(full):
    table = pulled("full").table
    row = table[table["method"] == "VeRA"].iloc[0]
    assert row["rank"] == 256
    assert json.loads(row["variant_options"]) == {}
    assert row["train_size"] == 600


def test_an_adapter_scored_on_other_items_is_no_silent_loss(store):
    log_run(spec(test_digests={"en": "old", "tl": "old"}), "e", items=0)
    log_run(spec(), "e", items=0)
    assert len(pulled("e").design.duplicates) == 1
