"""A merged model predicts what the adapter predicts, with transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from runs import plan_of, run_of
from transformers import AutoModelForCausalLM

from whichlora.errors import OptionError, ProofError
from whichlora.export import merging
from whichlora.export.command import main as export
from whichlora.models.loading import locate
from whichlora.probing import main as probe
from whichlora.testing import save_tiny_model
from whichlora.testing.runs import move_adapter
from whichlora.training import adapter, base_cache
from whichlora.training.trainer import total_steps
from whichlora.variants import CATALOGUE, STUDIED

IDS = torch.arange(5, 69).reshape(2, 32)
ADAPTERS = [
    pytest.param(name, marks=() if variant in STUDIED else pytest.mark.slow)
    for name, variant in CATALOGUE.items()
    if variant.mergeable and variant.has_adapter
]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def plain(folder: str | Path, **options: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


def disturb(model: Any) -> None:
    torch.manual_seed(1)
    move_adapter(model, by=0.05)


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_is_merged(name: str, tiny_model: str, tmp_path: Path) -> None:
    settings = {"full_share": 0.5} if name == "hybrid-lora" else None
    plan = plan_of(tiny_model, settings, variant=name, target_modules="q_proj,down_proj")
    torch.manual_seed(0)
    model, _, _ = adapter.attach(base_cache.checkout(plan), plan, total_steps=total_steps(plan.spec))
    adapter.save_initial(model, plan, tmp_path)
    disturb(model)
    adapter.save(model, plan, tmp_path / "adapter", initial=tmp_path)
    base_cache._cache.clear()
    merging.check_mergeable(tmp_path / "adapter")
    agreement = merging.merge(plan.source, tmp_path / "adapter", tmp_path / "merged", precision="fp32")
    assert agreement.difference < 1e-3
    base = logits(plain(tiny_model))
    adapted = logits(PeftModel.from_pretrained(plain(tiny_model), tmp_path / "adapter"))
    merged = logits(plain(tmp_path / "merged"))
    assert (adapted - base).abs().max() > 1e-3
    torch.testing.assert_close(merged, adapted, atol=1e-3, rtol=1e-3)
    assert not list((tmp_path / "merged").glob("adapter*"))


@pytest.mark.slow
def test_an_adapter_that_no_weight_can_hold_is_refused(
    store: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = run_of(plan_of(tiny_model, variant="lily")).run_id
    assert export(["--run_id", run_id, "--form", "merged", "--output", str(tmp_path / "merged")]) == 2
    assert "form=merged: no weight can hold an adapter of lily; use form=adapter" in capsys.readouterr().err
    assert probe(["--run_id", run_id, "--kind", "weights"]) == 2
    assert "lily has no update that a weight can hold" in capsys.readouterr().err


@pytest.fixture
def lora(tiny_model: str, tmp_path: Path) -> Path:
    """An adapter of LoRA, saved by PEFT."""
    return saved(tiny_model, tmp_path / "adapter", LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))


def saved(base: str, folder: Path, config: Any) -> Path:
    model = get_peft_model(plain(base), config)
    disturb(model)
    model.save_pretrained(folder)
    return folder


def test_tied_embeddings_that_an_adapter_changes_are_no_longer_tied(tiny_model: str, tmp_path: Path) -> None:
    assert plain(tiny_model).config.tie_word_embeddings
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    trained = saved(tiny_model, tmp_path / "adapter", config)
    merging.merge(locate(tiny_model), trained, tmp_path / "merged", precision="fp32")
    expected = logits(PeftModel.from_pretrained(plain(tiny_model), trained))
    torch.testing.assert_close(logits(plain(tmp_path / "merged")), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_ties_and_generation_settings_stay_as_they_were(tied: bool, tmp_path: Path) -> None:
    base = str(save_tiny_model(tmp_path / "base", tie_word_embeddings=tied))
    settings = json.loads((tmp_path / "base" / "generation_config.json").read_text()) | {"repetition_penalty": 1.3}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(settings))
    trained = saved(base, tmp_path / "adapter", LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    merging.merge(locate(base), trained, tmp_path / "merged", precision="fp32")
    merged = plain(tmp_path / "merged")
    assert merged.config.tie_word_embeddings == tied
    assert merged.generation_config.repetition_penalty == 1.3


def test_bf16_weights_are_rounded_once(tiny_model: str, lora: Path, tmp_path: Path) -> None:
    agreement = merging.merge(locate(tiny_model), lora, tmp_path / "merged", precision="bf16")
    exact = PeftModel.from_pretrained(plain(tiny_model), lora).merge_and_unload().state_dict()
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert written.dtype == torch.bfloat16
    assert all(tensor.equal(exact[name].bfloat16()) for name, tensor in written.state_dict().items())
    assert 0 < agreement.difference < 0.1 * agreement.largest


def test_a_model_that_predicts_otherwise_is_refused(
    tiny_model: str, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, **options: self.unload(), raising=False)
    with pytest.raises(ProofError, match="does not predict what the adapter predicts"):
        merging.merge(locate(tiny_model), lora, tmp_path / "merged", precision="fp32")


def test_what_cannot_be_merged_is_refused_before_the_base_is_loaded(tiny_model: str, tmp_path: Path) -> None:
    prompts = saved(tiny_model, tmp_path / "prompts", PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"))
    with pytest.raises(OptionError, match=r"^form=merged: PROMPT_TUNING adds prompts, which no weight can hold"):
        merging.check_mergeable(prompts)
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=[5])
    with pytest.raises(OptionError, match="acts on some tokens only"):
        merging.check_mergeable(saved(tiny_model, tmp_path / "alora", config))
