"""Packed examples give the loss, gradients and answers of padded ones, for every packable family."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import save_family
from packed import assert_equal, attached, gradients
from runs import plan_of
from transformers import AutoModelForCausalLM

from whichlora.data.batching import IGNORED, collate
from whichlora.data.encoding import Encoder
from whichlora.evaluation.generation import generate
from whichlora.models import answer_logits, packing
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.kernels.onednn import padding_rows
from whichlora.models.packing import families
from whichlora.testing import save_tiny_model
from whichlora.training import base_cache
from whichlora.training.micro_batches import set_checkpointing
from whichlora.training.objectives import AnswerTokens

WINDOW = 8
"""Most texts of the tests are several times as long."""
ALTERNATE: dict[str, Any] = {
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
NO_DROPOUT = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.0)
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": {"config": "ApertusConfig"},
    "bloom": {"config": "BloomConfig"},
    "cohere": {"config": "CohereConfig"},
    "cohere2": {"config": "Cohere2Config", **ALTERNATE},
    "cwm": {"config": "CwmConfig", "head_dim": 8, **ALTERNATE},
    "exaone4": {"config": "Exaone4Config", **ALTERNATE},
    "falcon": {"config": "FalconConfig"},
    "falcon with ALiBi": {"config": "FalconConfig", "alibi": True, "multi_query": False, "parallel_attn": False},
    "falcon with groups": {"config": "FalconConfig", "new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma": {"config": "GemmaConfig", "head_dim": 8},
    "gemma2": {
        "config": "Gemma2Config",
        "head_dim": 8,
        "query_pre_attn_scalar": 5,
        "attn_logit_softcapping": 2.0,
        **ALTERNATE,
    },
    "gemma3_text": {"config": "Gemma3TextConfig", "head_dim": 8, "query_pre_attn_scalar": 5, **ALTERNATE},
    "glm": {"config": "GlmConfig", "head_dim": 8},
    "glm4": {"config": "Glm4Config", "head_dim": 8},
    "gpt2": {"config": "GPT2Config", **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)},
    "gpt_neox": {"config": "GPTNeoXConfig"},
    "granite": {"config": "GraniteConfig"},
    "llama": {"config": "LlamaConfig"},
    "ministral": {"config": "MinistralConfig", "head_dim": 8, **ALTERNATE},
    "ministral3": {"config": "Ministral3Config", "head_dim": 8, "sliding_window": WINDOW},
    "mistral": {"config": "MistralConfig", "sliding_window": WINDOW},
    "mixtral": {"config": "MixtralConfig", "num_local_experts": 4, "sliding_window": WINDOW},
    "nemotron": {"config": "NemotronConfig"},
    "olmo": {"config": "OlmoConfig"},
    "olmo2": {"config": "Olmo2Config"},
    "olmo3": {"config": "Olmo3Config", **ALTERNATE},
    "opt": {"config": "OPTConfig", "ffn_dim": 64, "word_embed_proj_dim": 32, **NO_DROPOUT},
    "opt with norms after": {
        **{"config": "OPTConfig", "ffn_dim": 64, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
        **NO_DROPOUT,
    },
    "phi": {"config": "PhiConfig"},
    "phi3": {"config": "Phi3Config", "sliding_window": WINDOW},
    "qwen2": {"config": "Qwen2Config", "use_sliding_window": True, **ALTERNATE},
    "qwen3": {"config": "Qwen3Config", "head_dim": 8, "use_sliding_window": True, **ALTERNATE},
    "qwen3_moe": {
        **{"config": "Qwen3MoeConfig", "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 16, "use_sliding_window": True, "sliding_window": WINDOW},
    },
    "smollm3": {"config": "SmolLM3Config", "use_sliding_window": True, **ALTERNATE},
    "stablelm": {"config": "StableLmConfig"},
    "starcoder2": {"config": "Starcoder2Config", "sliding_window": WINDOW},
    "xglm": {"config": "XGLMConfig", "ffn_dim": 64, **NO_DROPOUT},
}
WITHOUT_LINEAR_LAYERS = {"gpt2": {"variant": "full"}}


def first_of_mlp(decoder: Any) -> Any:
    """Return the first layer of the last block's MLP, without an adapter if the layer is the block's own."""
    block = (decoder.layers if hasattr(decoder, "layers") else decoder.h)[-1]
    return next((block.fc1 if hasattr(block, "fc1") else block.mlp).children())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_packed_family_has_the_gradients_of_padded_examples(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save_tiny_model(tmp_path / family, **FAMILIES[family]))
    model, examples, pad = attached(folder, **WITHOUT_LINEAR_LAYERS.get(family, {}))
    if "experts" in str(model):
        model.get_base_model().set_experts_implementation("eager")  # the default has no float64
    assert packing.can_pack(model)
    batch, in_rows = packing.pack(examples[:5]), collate(examples[:5], pad)
    with monkeypatch.context() as patch:
        if family == "xglm":  # its own attention has a constant of the default type, which is narrower
            patch.setattr(torch, "full", partial(torch.full, dtype=torch.float64))
        padded = gradients(model, in_rows)
    assert_equal(gradients(model, batch), padded)
    rows: list[int] = []
    first_of_mlp(unwrap_peft(model).get_decoder()).register_forward_pre_hook(
        lambda module, inputs: rows.append(inputs[0].shape[-2])
    )
    monkeypatch.setattr(answer_logits, "_computes_in_bf16_on_cpu", lambda model: True)
    assert_equal(gradients(model, batch), padded)  # the last block computes answer positions alone
    answers = int((batch["labels"] != IGNORED).sum())
    assert rows == [answers + padding_rows(answers)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_packed_family_generates_what_it_generates_from_padded_prompts(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save_tiny_model(tmp_path / family, **FAMILIES[family], use_cache=False))
    plan = plan_of(folder, task="atlas-qa", **WITHOUT_LINEAR_LAYERS.get(family, {}))
    model, encoder, items = base_cache.checkout(plan), Encoder(plan.task, plan.tokenizer), plan.tests["tl"].items[:3]
    packed = generate(model, encoder, items, name="test")
    monkeypatch.setattr(families, "FAMILIES", ())
    assert generate(model, encoder, items, name="test") == packed
    assert any(packed)


def test_all_packable_families_are_tested_and_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "explanation" / "speed.md").read_text()
    assert [name for name in families.FAMILIES if f"`{name}`" not in page] == []
    assert tuple(dict.fromkeys(name.split()[0] for name in FAMILIES)) == families.FAMILIES


@pytest.mark.parametrize("family", ["gpt_oss", "gptj", "mpt"])
def test_families_without_a_test_are_padded(
    tmp_path: Path,
    tiny_model: str,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With attention sinks, with rotary positions in an attention of their own, and with ALiBi by distance."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    model = AutoModelForCausalLM.from_pretrained(save_family(tmp_path / family, family, tiny_model))
    reason = packing.reason_to_pad(model)
    assert reason == f"packing is not tested with the architecture {family}"
    assert AnswerTokens(pad=0).optimized_for(model).packs is False
    assert f"Texts are padded, which takes longer than packing them: {reason}." in capsys.readouterr().err


def test_a_family_is_packed_with_its_usual_attention_alone(tmp_path: Path, tiny_model: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    assert packing.reason_to_pad(model) == "the model's attention is eager, not sdpa"
    folder = save_tiny_model(tmp_path / "gemma2", **FAMILIES["gemma2"])
    assert packing.can_pack(AutoModelForCausalLM.from_pretrained(folder))  # SDPA cannot cap scores


@pytest.mark.parametrize("family", ["opt", "bloom"])
def test_dropout_that_is_not_a_layer_is_drawn_for_each_example(tmp_path: Path, family: str) -> None:
    fields = FAMILIES[family]
    sharing = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "without", **fields))
    assert packing.can_share_prefixes(sharing)
    rate = {"dropout" if family == "opt" else "hidden_dropout": 0.1}
    dropping = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "with", **{**fields, **rate}))
    assert not packing.can_share_prefixes(dropping)


@pytest.mark.parametrize("family", ["falcon with ALiBi", "stablelm"])
def test_gradient_checkpointing_repeats_what_older_modules_compute(tmp_path: Path, family: str) -> None:
    model, examples, pad = attached(str(save_tiny_model(tmp_path / "model", **FAMILIES[family])))
    padded = gradients(model, collate(examples[:4], pad))
    set_checkpointing(model.get_base_model(), on=True)
    model.enable_input_require_grads()
    assert_equal(gradients(model, packing.pack(examples[:4])), padded)


@pytest.mark.parametrize("family", ["bloom", "stablelm"])
def test_older_modules_are_restored(tmp_path: Path, family: str) -> None:
    model, examples, pad = attached(str(save_tiny_model(tmp_path / "model", **FAMILIES[family])))
    before = gradients(model, collate(examples[:2], pad))
    gradients(model, packing.pack(examples[:2]))
    assert_equal(gradients(model, collate(examples[:2], pad)), before)
    assert not [module for module in model.modules() if "forward" in vars(module) or module._forward_pre_hooks]


@pytest.mark.parametrize("family", ["bloom", "falcon with ALiBi", "gemma2", "stablelm"])
def test_gradients_in_bf16_are_those_of_fp32_up_to_rounding(tmp_path: Path, family: str) -> None:
    model, examples, pad = attached(str(save_tiny_model(tmp_path / "model", **FAMILIES[family])))
    model.float()
    _, exact = gradients(model, collate(examples[:4], pad))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, ours = gradients(model, packing.pack(examples[:4]))
        _, library = gradients(model, collate(examples[:4], pad))

    def error(found: dict[str, torch.Tensor]) -> float:
        return sum(float((gradient - exact[name]).norm()) ** 2 for name, gradient in found.items()) ** 0.5

    size = sum(float(gradient.norm()) ** 2 for gradient in exact.values()) ** 0.5
    assert error(ours) < 0.01 * size + 1.5 * error(library)
