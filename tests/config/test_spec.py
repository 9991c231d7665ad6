"""What identifies a result and what identifies an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace

import pytest

from whichlora.config.spec import SPEC_VERSION, RunSpec

SPEC = RunSpec(
    variant="lora",
    arm="matched",
    task="atlas-nli",
    difficulty="normal",
    language="sw",
    model="/somewhere/model",
    tl_ratio=0.5,
    composition="substitution",
    train_size=500,
    validation_size=60,
    test_size=300,
    seed=42,
    rank=8,
    alpha=16.0,
    dropout=0.0,
    learning_rate=1e-3,
    epochs=1,
    batch_size=8,
    warmup=0.05,
    weight_decay=0.0,
    scheduler="linear",
    target_modules=("q_proj", "v_proj"),
    layers=(0, 1, 2),
    variant_options={"beta": 0.85},
    scoring="likelihood",
    select_on="mean",
    precision="fp32",
    quantization="none",
    prompt_language="en",
    prompt_version="nli-1",
    train_digest="a" * 64,
    test_digests={"en": "b" * 64, "tl": "c" * 64},
    model_digest="d" * 64,
)
OTHER = {
    "variant": "dora",
    "arm": "recommended",
    "task": "atlas-qa",
    "difficulty": "hard",
    "language": "hi",
    "model": "/elsewhere",
    "tl_ratio": 0.25,
    "composition": "addition",
    "train_size": 501,
    "validation_size": 61,
    "test_size": 301,
    "seed": 43,
    "rank": None,
    "alpha": 32.0,
    "dropout": 0.1,
    "learning_rate": 2e-3,
    "epochs": 2,
    "batch_size": 16,
    "warmup": 0.0,
    "weight_decay": 0.01,
    "scheduler": "cosine",
    "target_modules": ("q_proj",),
    "layers": (0, 1),
    "variant_options": {"beta": 0.9},
    "scoring": "generate",
    "select_on": "tl",
    "precision": "bf16",
    "quantization": "nf4",
    "prompt_language": "item",
    "prompt_version": "nli-2",
    "train_digest": "e" * 64,
    "test_digests": {"en": "b" * 64, "tl": "f" * 64},
    "model_digest": "g" * 64,
    "chat_template": "0123456789ab",
}
ZERO = replace(SPEC, tl_ratio=0.0, select_on="en")
each_field = pytest.mark.parametrize("name", [field.name for field in fields(RunSpec)])


@pytest.mark.parametrize("spec", [SPEC, replace(SPEC, rank=None, alpha=None, target_modules=(), layers=())])
def test_a_spec_comes_back_from_json(spec):
    again = RunSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert again.fingerprint == spec.fingerprint
    assert again.training_fingerprint == spec.training_fingerprint


@pytest.mark.parametrize("version", [SPEC_VERSION + 1, SPEC_VERSION - 1, None])
def test_another_spec_version_is_refused(version):
    with pytest.raises(ValueError, match="spec_version"):
        RunSpec.from_dict(SPEC.to_dict() | {"spec_version": version})


@each_field
def test_every_field_but_the_place_of_the_model_identifies_the_result(name):
    changed = replace(SPEC, **{name: OTHER[name]})
    assert (changed.fingerprint == SPEC.fingerprint) == (name == "model")


@each_field
def test_what_only_names_or_scores_an_adapter_does_not_identify_it(name):
    changed = replace(SPEC, **{name: OTHER[name]})
    same = changed.training_fingerprint == SPEC.training_fingerprint
    assert same == (name in {"model", "arm", "test_size", "test_digests"})


@each_field
def test_an_english_adapter_serves_every_language(name):
    changed = replace(ZERO, **{name: OTHER[name]})
    same = changed.training_fingerprint == ZERO.training_fingerprint
    assert same == (name in {"model", "arm", "test_size", "test_digests", "language"})


def test_an_english_adapter_that_the_target_language_chose_serves_that_language_only():
    spec = replace(ZERO, select_on="mean")
    assert spec.training_fingerprint != replace(spec, language="hi").training_fingerprint


def test_results_of_two_languages_differ_even_where_they_share_an_adapter():
    assert ZERO.fingerprint != replace(ZERO, language="hi").fingerprint


@pytest.mark.parametrize("change", [{"alpha": 16}, {"dropout": 0, "weight_decay": 0}, {"warmup": 0.05}])
def test_equal_specs_have_equal_fingerprints(change):
    same = replace(SPEC, **change)
    assert same == SPEC
    assert same.fingerprint == SPEC.fingerprint
    assert same.training_fingerprint == SPEC.training_fingerprint


def test_the_order_of_a_variants_options_plays_no_part():
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert replace(SPEC, variant_options=one).fingerprint == replace(SPEC, variant_options=two).fingerprint


def test_finished_runs_stay_valid():
    """A field that is added must not change what identifies the runs there are; raise SPEC_VERSION if it must."""
    assert SPEC.fingerprint == "5e8e5b1b96f15521f118caf20de7dc97d3dc75a2be6d2fa1bbd86cde4508de76"
    assert SPEC.training_fingerprint == "8e1a2bafec33bf1ce11e0879fbec580c67d9503dbf94be03b0135a57f2dae8f1"


def test_a_spec_without_chat_template_has_the_fingerprints_of_before_and_older_ones_are_read():
    older = {name: value for name, value in SPEC.to_dict().items() if name != "chat_template"}
    assert SPEC.to_dict()["chat_template"] == "none"
    assert RunSpec.from_dict(older) == SPEC
    assert "chat_template" not in SPEC.identity
    assert replace(SPEC, chat_template="0123").identity["chat_template"] == "0123"


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_fingerprints_are_the_same_in_every_process(hash_seed):
    code = (
        "import json, sys; from whichlora.config.spec import RunSpec; s = RunSpec.from_dict(json.load(sys.stdin)); "
        "print(s.fingerprint, s.training_fingerprint)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(SPEC.to_dict()),
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [SPEC.fingerprint, SPEC.training_fingerprint]
    assert len(SPEC.fingerprint) == 64
