"""Hybrid-LoRA: what is trained in full, what is not, and that a run keeps its choice."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from peft import PeftModel
from runs import PAIRS, moved, plan_of, run_of
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from whichlora.config.plan import Plan
from whichlora.data.encoding import Encoder
from whichlora.errors import OptionError, ProofError
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models.adapter_layers import adapter_modules, full_modules, trained_copy, trained_modules, unload
from whichlora.models.answer_logits import answer_loss
from whichlora.models.loading import load_model
from whichlora.probing.weights import _merged_weights, spectrum
from whichlora.testing import save_tiny_model
from whichlora.testing.interruption import kill_after_step
from whichlora.testing.runs import tracking_in
from whichlora.testing.variant_runs import check_training
from whichlora.training import adapter, base_cache, full_layers
from whichlora.training.trainer import train
from whichlora.training.verification import prove_trained
from whichlora.variants import CATALOGUE


def plan(model: str, settings: dict[str, Any] | None = None, **options: Any) -> Plan:
    return plan_of(model, settings, **{"variant": "hybrid-lora", **options})


def attached(model: str, plan: Plan) -> tuple[Any, Any, int]:
    torch.manual_seed(0)
    base = load_model(plan.source, precision="fp32", quantization="none")
    return adapter.attach(base, plan, total_steps=5)


def adapter_of(run_id: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="adapter"))


def steps(model: Any, optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    """Take optimiser steps on batches of the same random tokens."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        ids = torch.randint(3, 200, (4, 12), generator=generator)
        logits = model(input_ids=ids).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_without_a_budget_it_is_lora_to_the_last_bit(tiny_model: str, tmp_path: Path) -> None:
    saved = []
    for chosen in (plan_of(tiny_model, variant="lora"), plan(tiny_model, {"full_share": 0.0})):
        examples = [Encoder(chosen.task, chosen.tokenizer).example(item) for item in chosen.mixture.train]
        fitted = train(chosen, examples, tmp_path / chosen.spec.variant, validate=lambda model, step: 0.0)
        assert fitted is not None
        adapter.save(fitted.model, chosen, tmp_path / "adapter", initial=tmp_path)
        saved.append(load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
        base_cache.give_back_trained(fitted.model, chosen)
    assert saved[0].keys() == saved[1].keys()
    assert all(tensor.equal(saved[1][name]) for name, tensor in saved[0].items())


def test_with_the_whole_budget_it_is_full_fine_tuning_of_the_linear_layers(tiny_model: str) -> None:
    whole = plan(tiny_model, {"full_share": 1.0})
    hybrid, _, count = attached(tiny_model, whole)
    linear = {f"{name}.weight" for name in whole.shape.linears}
    full = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    for name, parameter in full.named_parameters():
        parameter.requires_grad_(name in linear)
    assert count == sum(parameter.numel() for parameter in full.parameters() if parameter.requires_grad)
    optimizer = CATALOGUE["hybrid-lora"].optimizer
    assert optimizer is not None
    steps(hybrid, optimizer(hybrid, 0.01, 0.1, whole.spec.variant_options))
    trained = [p for p in full.parameters() if p.requires_grad]
    steps(full, torch.optim.AdamW(trained, lr=0.01 * 0.04, weight_decay=0.1))
    before = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).state_dict()
    for name, tensor in hybrid.merge_and_unload().state_dict().items():
        assert tensor.equal(before[name]) == (name not in linear), name
        torch.testing.assert_close(tensor, full.state_dict()[name])


@pytest.mark.parametrize("selection", ["gradient", "spectral", "random", "model.layers.1.self_attn.v_proj,k_proj"])
def test_the_parts_are_disjoint_and_counted(tiny_model: str, selection: str) -> None:
    chosen = plan(tiny_model, {"selection": selection, "full_share": 0.2})
    model, _, count = attached(tiny_model, chosen)
    full, adapted = {name for name, _ in full_modules(model)}, {name for name, _ in adapter_modules(model)}
    assert full
    assert not full & adapted
    assert [name for name, _ in trained_modules(model)] == list(chosen.adapted)
    size = {name: n_in * n_out for name, (n_in, n_out) in chosen.adapted.items()}
    assert sum(size[name] for name in full) <= 0.2 * sum(size.values())
    lora = sum(8 * sum(chosen.adapted[name]) for name in adapted)
    assert count == sum(size[name] for name in full) + lora
    ids = torch.arange(5, 17)[None]
    model(input_ids=ids).logits.square().mean().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(".lora_" in name or ".modules_to_save." in name for name in with_gradient)
    assert sum(".modules_to_save." in name for name in with_gradient) == len(full)
    if selection.startswith("model"):
        assert full == {f"model.layers.{n}.self_attn.k_proj" for n in range(3)} | {selection.partition(",")[0]}


def test_biases_stay_frozen_and_a_tied_lm_head_is_no_candidate(tmp_path: Path) -> None:
    model = str(save_tiny_model(tmp_path / "qwen", config="Qwen2Config"))
    chosen = plan(model, {"full_share": 1.0})
    attached_model, _, count = attached(model, chosen)
    assert count == sum(n_in * n_out for n_in, n_out in chosen.shape.linears.values())
    biased = [
        layer for layer in map(trained_copy, dict(full_modules(attached_model)).values()) if layer.bias is not None
    ]
    assert len(biased) == 9
    assert not any(layer.bias.requires_grad for layer in biased)
    assert not any("lm_head" in name for name in chosen.adapted)


def test_names_that_end_alike_are_not_mixed_up(tmp_path: Path) -> None:
    """Layer 1 of twelve is neither 11 nor 21."""
    model = str(save_tiny_model(tmp_path / "deep", num_hidden_layers=12))
    found, _, _ = attached(model, plan(model, {"selection": "model.layers.1.mlp.down_proj"}))
    assert [name for name, _ in full_modules(found)] == ["model.layers.1.mlp.down_proj"]
    wrong = plan(model, {"selection": "model.layers.1.mlp.down_proj"})
    base = load_model(wrong.source, precision="fp32", quantization="none")
    base.other = torch.nn.ModuleDict({"model": torch.nn.ModuleDict({"layers": copy.deepcopy(base.model.layers)})})
    with pytest.raises(ProofError, match="PEFT trains 2 layers in full"):
        adapter.attach(base, wrong, total_steps=5)


@pytest.mark.slow
def test_a_run_records_its_choice_and_a_resumed_one_keeps_it(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"variant": "hybrid-lora", "epochs": 2}
    with tracking_in(store, work="killed"):
        kill_after_step(tiny_model, 3, options)
        (work,) = [path for path in (store / "killed").iterdir() if path.is_dir()]
        record = json.loads((work / full_layers.RECORD).read_text())
        monkeypatch.setattr(full_layers, "_chosen", lambda *_: pytest.fail("the layers were chosen again"))
        result = run_of(plan_of(tiny_model, **options))
    run = mlflow.MlflowClient().get_run(result.run_id)
    assert run.data.params["fully_trained"] == ",".join(record["layers"])
    assert run.data.metrics["adapter/fully_trained_parameters"] == record["parameters"]
    assert run.data.metrics["train/selection_seconds"] == record["seconds"]
    saved = adapter_of(result.run_id)
    logged = json.loads((saved / full_layers.RECORD).read_text())
    assert logged["layers"] == record["layers"]
    assert logged["scores"].keys() == set(plan_of(tiny_model, **options).adapted)
    assert json.loads((saved / "adapter_config.json").read_text())["modules_to_save"] == record["layers"]
    assert f"trained in full: {', '.join(record['layers'])}".replace("_", "\\_") in (saved / "README.md").read_text()


@pytest.mark.slow
def test_without_the_record_of_its_layers_a_killed_run_starts_over(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking_in(store, work="killed"):
        kill_after_step(tiny_model, 3, {"variant": "hybrid-lora", "epochs": 2})
        (work,) = [path for path in (store / "killed").iterdir() if path.is_dir()]
        (work / full_layers.RECORD).write_text("{}")
        run_of(plan(tiny_model, epochs=2))
    found = capsys.readouterr()
    assert f"{full_layers.RECORD} is missing or damaged: training starts over" in found.err
    assert "Resuming" not in found.out


def test_unloading_gives_the_base_back(tiny_model: str) -> None:
    chosen = plan(tiny_model, {"full_share": 0.5})
    base = load_model(chosen.source, precision="fp32", quantization="none")
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for _ in range(2):
        after = unload(moved(chosen, base=base)).state_dict()
        assert after.keys() == before.keys()
        assert all(tensor.equal(after[name]) for name, tensor in before.items())


def test_the_weight_probe_reads_both_kinds_of_updates(tiny_model: str, tmp_path: Path) -> None:
    chosen = plan(tiny_model)
    model = moved(chosen)
    adapter.save(model, chosen, tmp_path, initial=tmp_path)
    full = {name for name, _ in full_modules(model)}
    base_cache.give_back_trained(model, chosen)
    found = {}
    for name, before, after in _merged_weights(chosen, tmp_path, base_cache.checkout(chosen)):
        found[name] = spectrum(after - before).rank
    assert list(found) == list(chosen.adapted)
    assert full
    for name, rank in found.items():
        assert (rank == min(chosen.adapted[name])) if name in full else (rank == 8), name


def trained(tiny_model: str) -> tuple[Plan, Any, Any]:
    """Return plan, model and evidence after three steps that prove themselves."""
    chosen = plan(tiny_model)
    model, evidence, _ = attached(tiny_model, chosen)
    optimizer = CATALOGUE["hybrid-lora"].optimizer
    assert optimizer is not None
    steps(model, optimizer(model, 0.01, 0.0, chosen.spec.variant_options))
    evidence.without_gradient = {}
    evidence.rates = {n: 0.01 * (0.04 if "modules_to_save" in n else 1) for n in evidence.trainable}
    prove_trained(model, chosen.variant, evidence)
    return chosen, model, evidence


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("low rank", "has rank 1, which LoRA could reach"),
        ("unchanged", "which is trained in full, did not change"),
        ("base", "the base weight of .* changed, beside its copy"),
        ("other base", "frozen base weight changed"),
        ("rates", r"modules_to_save must have 0\.04 times"),
        ("nothing", "no weight was trained in full"),
    ],
)
def test_its_witness_sees_each_fault(tiny_model: str, fault: str, message: str) -> None:
    chosen, model, evidence = trained(tiny_model)
    (_, module), *_ = sorted(full_modules(model), key=lambda pair: trained_copy(pair[1]).weight.numel())
    weight, original = trained_copy(module).weight.data, module.original_module.weight.data
    if fault == "low rank":
        weight.copy_(original + torch.outer(torch.arange(1.0, len(weight) + 1), torch.ones(weight.shape[1])))
    elif fault == "unchanged":
        weight.copy_(original)
    elif fault == "base":
        original[0, 0] += 1
    elif fault == "other base":
        next(iter(adapter_modules(model)))[1].base_layer.weight.data[0, 0] += 1
    elif fault == "rates":
        evidence.rates = dict.fromkeys(evidence.rates, 0.01)
    else:
        model, evidence, _ = attached(tiny_model, plan(tiny_model, {"full_share": 0.0}))
        evidence.settings.options["full_share"] = 0.1
        steps(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01))
        evidence.without_gradient = {}
    with pytest.raises(ProofError, match=message):
        prove_trained(model, chosen.variant, evidence)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_in_bf16_it_is_scored_as_it_will_be_reloaded(tiny_model: str, tmp_path: Path, share: float) -> None:
    chosen = plan(tiny_model, {"full_share": share}, precision="bf16")
    model = moved(chosen, precision="bf16").eval()
    encoder = Encoder(chosen.task, chosen.tokenizer)
    items = [item for test in chosen.tests.values() for item in test.items]
    with torch.no_grad():
        before = label_probabilities(model, encoder, items, name="trained")
    adapter.save(model, chosen, tmp_path / "adapter", initial=tmp_path)
    plain = PeftModel.from_pretrained(
        load_model(chosen.source, precision="bf16", quantization="none"), str(tmp_path / "adapter")
    ).eval()
    with torch.no_grad():
        after = label_probabilities(plain, encoder, items, name="reloaded")
    assert abs(before - after).max() == 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        batch = {"input_ids": torch.arange(5, 25)[None], "labels": torch.arange(5, 25)[None]}
        answer_loss(model.train(), batch)[0].backward()
    assert all(trained_copy(module).weight.grad is not None for _, module in full_modules(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [{"selection": "spectral"}, {"selection": "random"}, {"selection": ["v_proj"]}, {"full_share": 1.0}],
    ids=str,
)
def test_each_selection_trains_and_reloads(store: Path, tiny_model: str, settings: dict[str, Any]) -> None:
    check_training("hybrid-lora", tiny_model, store, settings=settings)


@pytest.mark.slow
def test_word_pairs_choose_by_their_own_loss(store: Path, tiny_model: str) -> None:
    chosen = plan(tiny_model, **PAIRS)
    assert run_of(chosen).metrics["adapter/fully_trained_parameters"] > 0


def test_what_it_cannot_do_is_refused_before_a_model_is_loaded(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_cache, "load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(OptionError, match=r"^quantization=nf4: variant hybrid-lora needs weights in full precision"):
        plan(tiny_model, quantization="nf4")
    with pytest.raises(OptionError, match=r"^options=full_share=0\.1: the smallest of the 2 adapted layers has 50 %"):
        plan(tiny_model, layers="first:1", target_modules="k_proj,v_proj")
    with pytest.raises(OptionError, match=r"model\.layers\.0\.mlp\.up_proj is not an adapted layer"):
        plan(tiny_model, {"selection": "model.layers.0.mlp.up_proj"}, layers="last:1")
