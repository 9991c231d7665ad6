"""The language probe on the tiny model, from options to a tracked result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from probes import probed, probes, table
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from whichlora.data.detectors import detect, get_detector
from whichlora.probing import main, partial_results
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.language.classes import CLASSES
from whichlora.probing.options import LEVELS, OPTIONS
from whichlora.probing.request import parse

FEW = ("--items", "10", "--agreement", "0")


def test_probing_a_base_model_logs_one_complete_run(store: Path, tiny_model: str) -> None:
    candidates = ("--candidates", "en,sw,hi")  # Lingua loads fewer models
    run = probed("--model", tiny_model, "--items", "10", "--agreement", "30", "--arithmetic", "bf16", *candidates)
    assert run.info.status == "FINISHED"
    layers = table(run)
    assert list(layers.columns) == ["layer", "measure", "value", "low", "high", "n"]
    assert set(layers["measure"]) == {f"{level}/{kind}" for level in ("token", "sequence") for kind in CLASSES}
    assert set(layers["layer"]) == {-1, 0, 1, 2}
    whole = layers[layers["measure"].str.startswith("token")].groupby("layer")["value"].sum()
    assert whole.to_numpy() == pytest.approx(1)
    within = layers.dropna()
    assert ((within["low"] <= within["value"] + 1e-9) & (within["value"] <= within["high"] + 1e-9)).all()
    assert layers["n"].max() == 10

    params, metrics = run.data.params, run.data.metrics
    for name, value in {
        "kind": "language",
        "language": "sw",
        "items": "10",
        "detector": "cld3",
        "level": "token",
        "final_norm": "True",
        "positions": "all",
        "top_k": "1",
        "unreliable": "keep",
        "special_tokens": "drop",
        "arithmetic": "bf16",
        "candidates": "en,sw,hi",
        "new_tokens": "0",
        "reliable_from": "0.7",
        "source_fingerprint": "",
    }.items():
        assert params[name] == value
    assert {"version/cld3-py", "version/lingua-language-detector", "model_digest", "items_digest"} <= set(params)
    assert 0 <= metrics["arithmetic/differing"] < 0.5
    assert {"kappa/token", "kappa/sequence"} & set(metrics)
    assert metrics["kappa/n"] == 30
    assert metrics["ceiling/target"] == layers.query("layer == -1 and measure == 'token/target'")["value"].item()
    history = MlflowClient().get_metric_history(run.info.run_id, "language/english")
    expected = layers.query("layer >= 0 and measure == 'token/english'").sort_values("layer")["value"].dropna()
    assert [point.value for point in sorted(history, key=lambda p: p.step)] == pytest.approx(expected.tolist())

    names = {a.path for folder in ("", "figures") for a in MlflowClient().list_artifacts(run.info.run_id, folder)}
    assert {"layers.parquet", "items.parquet", "figures/languages.png", "figures/languages.svg"} <= names
    items = table(run, "items.parquet")
    assert len(items) == 10 * 4
    mean = items[items["layer"] == 1]["token/other"].mean()
    assert mean == pytest.approx(layers.query("layer == 1 and measure == 'token/other'")["value"].item())


def test_a_finished_probe_is_not_repeated(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    probed("--model", tiny_model, *FEW)
    probed("--model", tiny_model, *FEW)
    assert len(probes()) == 1
    assert "Already done" in capsys.readouterr().out
    probed("--model", tiny_model, *FEW, "--positions", "last")
    assert len(probes()) == 2


def test_the_ceiling_is_what_the_detector_says_of_the_input(store: Path, byte_model: str) -> None:
    """With a byte-level tokenizer no token of Hindi contains a letter, so all are classified as other."""
    run = probed("--model", byte_model, *FEW, "--language", "hi", "--positions", "item")
    ceiling = table(run).query("layer == -1").set_index("measure")["value"]
    assert ceiling["token/target"] == 0
    assert ceiling["token/other"] > 0.9
    assert ceiling["sequence/target"] == 1


def test_the_instruction_is_english_and_the_items_own_words_are_not(store: Path, tiny_model: str) -> None:
    everything = probed("--model", tiny_model, *FEW, "--language", "sw")
    own = probed("--model", tiny_model, *FEW, "--language", "sw", "--positions", "item")
    english = [run.data.metrics["ceiling/english"] for run in (everything, own)]
    assert english[0] > english[1]
    assert (table(everything, "items.parquet")["positions"] > table(own, "items.parquet")["positions"]).all()


def test_the_choices_of_zhao_2024(store: Path, tiny_model: str) -> None:
    run = probed("--model", tiny_model, "--items", "3", "--agreement", "0", "--preset", "zhao2024")
    params = run.data.params
    assert (params["final_norm"], params["top_k"], params["unreliable"]) == ("False", "10", "drop")
    assert params["new_tokens"] == "64"
    assert set(params["candidates"].split(",")) == {"en", "ur", "sw", "hi", "bn", "te"}
    assert (table(run, "items.parquet")["positions"] > 64).all()


def by_the_obvious_loop(folder: str, choices: LanguageChoices, candidates: Any) -> dict[str, Any]:
    """Compute the shares of Swahili items by layer and id directly with transformers and a detector."""
    plan = plan_of(folder, variant="none", test_size=10)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    detector = get_detector(choices.detector, candidates)

    def shares(texts: list[str]) -> list[float]:
        detections = [detect(detector, text) for text in texts]
        languages = [v.language for v in detections if v.reliable or choices.unreliable == "keep"]
        counted = [language for language in languages if candidates is None or language in candidates]
        english, swahili = counted.count("en"), counted.count("sw")
        counts = [english, swahili, len(counted) - english - swahili]
        return [count / len(counted) if counted else np.nan for count in counts]

    found: dict[str, Any] = {f"{level}/{layer}": {} for level in LEVELS for layer in range(3)}
    for item in plan.tests["tl"].items:
        ids = tokenizer(plan.task.prompt(item), return_tensors="pt").input_ids
        with torch.inference_mode():
            states = model(ids, output_hidden_states=True).hidden_states
            for layer in range(3):
                state = states[layer + 1][0]
                logits = model.lm_head(state if layer == 2 else model.model.norm(state))
                best = logits.topk(choices.top_k).indices
                tokens = [t for t in best.flatten().tolist() if t not in tokenizer.all_special_ids]
                found[f"token/{layer}"][item.id] = shares([tokenizer.decode([t]) for t in tokens])
                found[f"sequence/{layer}"][item.id] = shares([tokenizer.decode(best[:, 0], skip_special_tokens=True)])
    return found


@pytest.mark.parametrize(
    ("options", "candidates"),
    [
        ({"detector": "lingua", "level": "sequence", "candidates": "en,sw,hi"}, ("en", "sw", "hi")),
        ({"detector": "cld3", "top_k": "3", "unreliable": "drop"}, None),
        ({"detector": "lingua", "top_k": "4", "unreliable": "drop", "candidates": "en,sw"}, ("en", "sw")),
    ],
)
def test_shares_are_those_of_the_obvious_loop(
    store: Path, tiny_model: str, options: dict[str, str], candidates: Any
) -> None:
    run = probed("--model", tiny_model, *FEW, *(part for name, text in options.items() for part in (f"--{name}", text)))
    assert {name: run.data.params[name] for name in options} == options
    choices = parse({**{name: default for name, (default, _) in OPTIONS.items()}, **options}).choices
    assert isinstance(choices, LanguageChoices)
    expected = by_the_obvious_loop(tiny_model, choices, candidates)
    items = table(run, "items.parquet").set_index(["layer", "id"])
    assert len(items) == 10 * 4
    for key, by_item in expected.items():
        level, _, layer = key.partition("/")
        found = items.loc[int(layer)].loc[list(by_item), [f"{level}/{kind}" for kind in CLASSES]]
        np.testing.assert_allclose(found, list(by_item.values()), err_msg=key)

    layers, level = table(run).set_index(["measure", "layer"])["value"], choices.level
    history = MlflowClient().get_metric_history(run.info.run_id, f"language/{CLASSES[2]}")
    means = layers[f"{level}/{CLASSES[2]}"].drop(-1).dropna()
    assert {point.step: point.value for point in history} == pytest.approx(means.to_dict())
    assert run.data.metrics["ceiling/english"] == pytest.approx(layers[f"{level}/english", -1])


@pytest.mark.parametrize(
    "variant", ["lora", "dora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pissa", "vera", "adalora"))]
)
def test_a_merged_adapter_gives_the_same_result_as_an_unmerged_one(
    store: Path, tiny_model: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from whichlora.training import adapter, base_cache

    result = run_of(plan_of(tiny_model, variant=variant, rank=4, learning_rate=0.05))
    merged = probed("--run_id", result.run_id, "--agreement", "0")

    @contextmanager
    def unmerged_adapter(plan: Any, folder: Path) -> Any:
        yield adapter.load_saved(plan, folder, base=base_cache.checkout(plan))

    monkeypatch.setattr(base_cache, "saved_model", unmerged_adapter)
    MlflowClient().delete_run(merged.info.run_id)
    unmerged = probed("--run_id", result.run_id, "--agreement", "0")
    pd.testing.assert_frame_equal(table(merged), table(unmerged))
    pd.testing.assert_frame_equal(table(merged, "items.parquet"), table(unmerged, "items.parquet"))
    base = probed("--model", tiny_model, "--items", "9", "--agreement", "0")
    assert not table(base).equals(table(merged))
    pd.testing.assert_frame_equal(table(base).query("layer == -1"), table(merged).query("layer == -1"))


def test_the_probe_of_a_run_names_it(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, variant="vera", rank=8, seed=3))
    run = probed("--run_id", result.run_id, "--agreement", "0")
    assert run.data.tags["whichlora.source"] == result.run_id
    assert run.data.params["source/variant"] == "vera"
    assert run.data.params["source/seed"] == "3"
    read = {name: run.data.params[name] for name in ("task", "difficulty", "prompt_language")}
    assert read == {"task": "atlas-nli", "difficulty": "normal", "prompt_language": "en"}
    assert run.data.params["items"] == "9"
    digests = json.loads(MlflowClient().get_run(result.run_id).data.params["test_digests"])
    assert run.data.params["items_digest"] == digests["tl"]  # by which the report identifies the items


def test_parts_and_batches_do_not_matter(store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.probing.language import probe

    whole = probed("--model", tiny_model, *FEW)
    MlflowClient().delete_run(whole.info.run_id)
    monkeypatch.setattr(partial_results, "PART_ITEMS", 3)
    monkeypatch.setattr(probe, "BATCH_TOKENS", 100)
    split = probed("--model", tiny_model, *FEW)
    pd.testing.assert_frame_equal(table(whole), table(split))
    pd.testing.assert_frame_equal(table(whole, "items.parquet"), table(split, "items.parquet"))


def test_a_failed_probe_resumes_where_it_stopped(store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.probing.partial_results import PartialResults

    monkeypatch.setattr(partial_results, "PART_ITEMS", 2)
    written = []
    write = PartialResults._write

    def fail_at_third(self: PartialResults, index: int, arrays: Any) -> None:
        if index == 2 and len(written) == 2:
            raise RuntimeError("the disk is full")
        written.append(index)
        write(self, index, arrays)

    monkeypatch.setattr(PartialResults, "_write", fail_at_third)
    assert main(["--model", tiny_model, *FEW]) == 2
    (failed,) = probes()
    assert failed.info.status == "FAILED"
    written.append(-1)
    resumed = probed("--model", tiny_model, *FEW)
    assert resumed.info.run_id == failed.info.run_id
    assert written == [0, 1, -1, 2, 3, 4]
    assert not list(store.glob("whichlora-work/probe-*/"))

    MlflowClient().delete_run(resumed.info.run_id)
    monkeypatch.setattr(PartialResults, "_write", write)
    uninterrupted = probed("--model", tiny_model, *FEW)
    pd.testing.assert_frame_equal(table(resumed), table(uninterrupted))


@pytest.mark.slow
def test_a_killed_probe_gives_the_same_result_as_an_uninterrupted_one(store: Path, tiny_model: str) -> None:
    command = [sys.executable, "-m", "whichlora.probing", "--model", tiny_model, "--items", "400", "--agreement", "0"]
    for kill in range(1, 4):
        process = subprocess.Popen(command, start_new_session=True)
        end = time.monotonic() + 300
        while len(list(store.glob("whichlora-work/probe-*/parts/*.npz"))) < 3 * kill:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, timeout=600).returncode == 0
    (resumed,) = probes()
    assert resumed.info.status == "FINISHED"
    assert resumed.data.tags["whichlora.resumed"] == "true"
    MlflowClient().delete_run(resumed.info.run_id)
    assert subprocess.run(command, timeout=600).returncode == 0
    pd.testing.assert_frame_equal(table(resumed), table(probes()[0]))
    assert np.isfinite(table(resumed).query("measure == 'token/other'")["value"]).all()
