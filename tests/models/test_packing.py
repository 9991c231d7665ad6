"""Packed examples give the loss and the gradients of padded ones, for every variant and every packable family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import save_family
from methods import TRAINED, cases
from runs import moved, plan_of
from transformers import AutoModelForCausalLM

from whichlora.data.batching import IGNORED, collate
from whichlora.data.encoding import Encoded, Encoder
from whichlora.evaluation.generation import generate
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models import answer_logits, packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels.onednn import padding_rows
from whichlora.models.loading import load_model
from whichlora.testing import save_tiny_model
from whichlora.training import base_cache
from whichlora.training.micro_batches import set_checkpointing
from whichlora.training.objectives import AnswerTokens
from whichlora.variants import CATALOGUE

WINDOW = 8
"""Most texts of the tests are several times as long."""
ALTERNATE: dict[str, Any] = {
    "sliding_window": WINDOW,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "cohere2": {"config": "Cohere2Config", **ALTERNATE},
    "cwm": {"config": "CwmConfig", "head_dim": 8, **ALTERNATE},
    "exaone4": {"config": "Exaone4Config", **ALTERNATE},
    "gemma": {"config": "GemmaConfig", "head_dim": 8},
    "gemma3_text": {"config": "Gemma3TextConfig", "head_dim": 8, "query_pre_attn_scalar": 5, **ALTERNATE},
    "gpt_neox": {"config": "GPTNeoXConfig"},
    "granite": {"config": "GraniteConfig"},
    "llama": {"config": "LlamaConfig"},
    "ministral": {"config": "MinistralConfig", "head_dim": 8, **ALTERNATE},
    "ministral3": {"config": "Ministral3Config", "head_dim": 8, "sliding_window": WINDOW},
    "mistral": {"config": "MistralConfig", "sliding_window": WINDOW},
    "mixtral": {"config": "MixtralConfig", "num_local_experts": 4, "sliding_window": WINDOW},
    "olmo2": {"config": "Olmo2Config"},
    "olmo3": {"config": "Olmo3Config", **ALTERNATE},
    "phi3": {"config": "Phi3Config", "sliding_window": WINDOW},
    "qwen2": {"config": "Qwen2Config", "use_sliding_window": True, **ALTERNATE},
    "qwen3": {"config": "Qwen3Config", "head_dim": 8, "use_sliding_window": True, **ALTERNATE},
    "qwen3_moe": {
        **{"config": "Qwen3MoeConfig", "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 16, "use_sliding_window": True, "sliding_window": WINDOW},
    },
    "smollm3": {"config": "SmolLM3Config", "use_sliding_window": True, **ALTERNATE},
    "starcoder2": {"config": "Starcoder2Config", "sliding_window": WINDOW},
}


def attached(folder: str, **options: Any) -> tuple[Any, list[Encoded], int]:
    """Return a model whose adapter is not at its initial values, examples in several languages, and the pad token."""
    plan = plan_of(folder, learning_rate="0.001", **options)
    model = moved(plan)
    encoder = Encoder(plan.task, plan.tokenizer)
    return model.double().train(), [encoder.example(item) for item in plan.mixture.train], plan.tokenizer.pad_token_id


def gradients(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients, with packed attention where the batch is packed.

    In float64, so that only real differences show; norms and the loss stay in float32.
    """
    model.zero_grad()
    torch.manual_seed(3)
    if "layout" in batch:
        with packing.attention(model):
            loss, count = answer_loss(model, batch)
            (loss / count).backward()
    else:
        loss, count = answer_loss(model, batch)
        (loss / count).backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    assert one[1].keys() == other[1].keys() != set()
    size = max(float(g.norm()) for g in other[1].values())
    for name, gradient in one[1].items():
        assert float((gradient - other[1][name]).norm()) < 1e-6 * size, name


@pytest.mark.parametrize("variant", cases([name for name in TRAINED if not CATALOGUE[name].reads_batch]))
def test_every_variant_has_the_gradients_of_padded_examples(
    tiny_model: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, pad = attached(tiny_model, variant=variant)
    assert packing.can_pack(model)
    padded = gradients(model, collate(examples[:6], pad))
    for share in (True, False) if packing.can_share_prefixes(model) else (False,):
        packed = packing.pack(examples[:6], share=share)
        tokens = sum(map(len, examples[:6]))
        tokens += padding_rows(tokens)
        assert packed["input_ids"].shape[1] < tokens if share else packed["input_ids"].shape[1] == tokens
        assert_equal(gradients(model, packed), padded)
    if packing.can_share_prefixes(model):  # dropout would draw masks for fewer tokens
        monkeypatch.setattr(answer_logits, "_computes_in_bf16_on_cpu", lambda model: True)
        assert_equal(gradients(model, packed), padded)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_packed_family_has_the_gradients_of_padded_examples(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, pad = attached(str(save_tiny_model(tmp_path / family, **FAMILIES[family])))
    if "experts" in str(model):
        model.get_base_model().set_experts_implementation("eager")  # the default has no float64
    assert packing.can_pack(model)
    batch, padded = packing.pack(examples[:5]), gradients(model, collate(examples[:5], pad))
    assert_equal(gradients(model, batch), padded)
    rows: list[int] = []
    mlp = model.get_base_model().get_decoder().layers[-1].mlp
    next(mlp.children()).register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].shape[-2]))
    monkeypatch.setattr(answer_logits, "_computes_in_bf16_on_cpu", lambda model: True)
    assert_equal(gradients(model, batch), padded)  # the last block computes answer positions alone
    answers = int((batch["labels"] != IGNORED).sum())
    assert rows == [answers + padding_rows(answers)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_packed_family_generates_what_it_generates_from_padded_prompts(
    tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(save_tiny_model(tmp_path / family, **FAMILIES[family], use_cache=False))
    plan = plan_of(folder, task="atlas-qa")
    model, encoder, items = base_cache.checkout(plan), Encoder(plan.task, plan.tokenizer), plan.tests["tl"].items[:3]
    packed = generate(model, encoder, items, name="test")
    monkeypatch.setattr(packing, "_FAMILIES", ())
    assert generate(model, encoder, items, name="test") == packed
    assert any(packed)


def test_all_packable_families_are_tested() -> None:
    assert tuple(FAMILIES) == packing._FAMILIES


@pytest.mark.parametrize("family", ["gpt_oss", "gemma2", "stablelm", "falcon", "opt", "bloom"])
def test_attention_sinks_capped_scores_and_families_without_a_test_are_padded(
    tmp_path: Path,
    tiny_model: str,
    family: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    model = AutoModelForCausalLM.from_pretrained(save_family(tmp_path / family, family, tiny_model))
    reason = packing.reason_to_pad(model)
    assert reason == f"packing is not tested with the architecture {family}"
    assert AnswerTokens(pad=0).optimized_for(model).packs is False
    assert f"Texts are padded, which takes longer than packing them: {reason}." in capsys.readouterr().err
    monkeypatch.setattr(packing, "_FAMILIES", (family,))
    assert packing.can_pack(model) == (family in ("stablelm", "falcon", "opt"))


def test_other_types_of_layers_are_padded(tiny_model: str) -> None:
    model, _, _ = attached(tiny_model)
    for layer in ("chunked_attention", "linear_attention", "conv"):
        model.config.layer_types = ["full_attention", layer, "sliding_attention"]
        assert not packing.can_pack(model)


def test_dropout_is_drawn_for_each_example(tiny_model: str) -> None:
    model, _, _ = attached(tiny_model)
    assert packing.can_share_prefixes(model)
    model.base_model.model.lm_head.register_module("extra", torch.nn.Dropout(0.1))
    assert not packing.can_share_prefixes(model)


@pytest.mark.parametrize("restricted", [False, True])
def test_gradient_checkpointing_changes_nothing(
    tiny_model: str, restricted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, _ = attached(tiny_model)
    monkeypatch.setattr(answer_logits, "_computes_in_bf16_on_cpu", lambda model: restricted)
    once = gradients(model, packing.pack(examples[:4]))
    set_checkpointing(model.get_base_model(), on=True)
    model.enable_input_require_grads()
    assert_equal(gradients(model, packing.pack(examples[:4])), once)


@pytest.mark.parametrize(
    ("examples", "ids"),
    [
        ([Encoded([5, 6, 7], [8, 2])], [5, 6, 7, 8, 2]),  # alone
        ([Encoded([5, 6, 7], [8, 2])] * 2, [5, 6, 7, 8, 2, 7, 8, 2]),  # a prompt's last token predicts the answer
        ([Encoded([5, 6, 7], [8, 2]), Encoded([5, 6], [9, 9, 2])], [5, 6, 7, 8, 2, 6, 9, 9, 2]),
        ([Encoded([5, 6, 7], [8, 2]), Encoded([4, 6, 7], [9, 2])], [5, 6, 7, 8, 2, 4, 6, 7, 9, 2]),
        ([Encoded([5], [8, 2]), Encoded([5], [9, 2])], [5, 8, 2, 5, 9, 2]),
        (  # the first shares more with the last than with the one between
            [Encoded([5, 6, 7, 3], [8, 2]), Encoded([5, 7, 7, 3], [8, 2]), Encoded([5, 6, 7, 4], [9, 2])],
            [5, 6, 7, 3, 8, 2, 7, 7, 3, 8, 2, 4, 9, 2],
        ),
        (  # too unlike in length for one group
            [Encoded([5, 6, 7], [8, 2]), Encoded([5, 6, *range(20, 60)], [9, 2]), Encoded([5, 6, 8], [8, 2])],
            [5, 6, 7, 8, 2, *range(20, 60), 9, 2, 8, 8, 2],
        ),
    ],
)
def test_shared_prefixes_are_stored_once(tiny_model: str, examples: list[Encoded], ids: list[int]) -> None:
    model, _, pad = attached(tiny_model)
    packed = packing.pack(examples)
    assert packed["input_ids"].tolist() == [ids]
    assert_equal(gradients(model, packed), gradients(model, collate(examples, pad)))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "bf16 weights"])
@pytest.mark.parametrize("how", ["scored", "scored on long texts", "trained", "trained on long texts"])
def test_on_a_cpu_attention_in_bf16_runs_in_fp32_except_for_short_texts(
    tiny_model: str, autocast: bool, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, examples, pad = attached(tiny_model)
    model.float()
    exact = answer_loss(model, collate(examples[:6], pad))[0].item()
    seen: set[torch.dtype] = set()
    original = packing.sdpa_attention_forward

    def watched(module: Any, query: Any, key: Any, value: Any, *more: Any, **named: Any) -> Any:
        output = original(module, query, key, value, *more, **named)
        seen.update(states.dtype for states in (query, key, value, output[0]))
        return output

    monkeypatch.setattr(packing, "sdpa_attention_forward", watched)
    monkeypatch.setattr(packing, "MAX_MATMUL_TOKENS", 4 if "long" in how else 256)
    model.train("trained" in how)
    if not autocast:
        model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        assert gradients(model, packing.pack(examples[:6]))[0] == pytest.approx(exact, rel=0.05)
    assert seen == ({torch.float32} if "long" in how else set())


def test_a_bf16_model_with_large_key_channels_labels_as_it_does_with_the_librarys_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Qwen2 has them: queries of 30 and keys of 100 in two dimensions of each head, the slowest of RoPE."""
    folder = save_tiny_model(tmp_path / "outliers", config="Qwen2Config", hidden_size=64, tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for layer in model.model.layers:
            for linear, size in ((layer.self_attn.q_proj, 30.0), (layer.self_attn.k_proj, 100.0)):
                linear.weight.mul_(0.5)
                linear.bias.view(-1, layer.self_attn.head_dim // 2)[:, -1] = size
    model.save_pretrained(folder)
    plan = plan_of(str(folder), test_size=100)
    items = [item for test in plan.tests.values() for item in test.items]

    def labels(precision: str) -> np.ndarray[Any, Any]:
        loaded = load_model(plan.source, precision=precision, quantization="none")
        with torch.inference_mode():
            return label_probabilities(loaded, plan.encoder(), items, name="test").argmax(1)

    exact, packed = labels("fp32"), labels("bf16")
    monkeypatch.setattr(packing, "_FAMILIES", ())
    library = labels("bf16")
    assert len(items) == 200
    assert (packed != exact).sum() <= 1.3 * (library != exact).sum()


def test_the_models_own_attention_is_restored(tiny_model: str) -> None:
    model, _, _ = attached(tiny_model)
    with packing.attention(model):
        assert model.config._attn_implementation != "sdpa"
    assert model.config._attn_implementation == "sdpa"
