"""Packed examples give the loss and the gradients of padded ones, for every variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods import TRAINED, cases
from packed import assert_equal, attached, gradients
from runs import plan_of
from transformers import AutoModelForCausalLM

from whichlora.data.batching import collate
from whichlora.data.encoding import Encoded
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models import answer_logits, packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels.onednn import padding_rows
from whichlora.models.loading import load_model
from whichlora.models.packing import families, text_attention
from whichlora.testing import save_tiny_model
from whichlora.training.micro_batches import set_checkpointing
from whichlora.variants import CATALOGUE


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
    original = text_attention.sdpa_attention_forward

    def watched(module: Any, query: Any, key: Any, value: Any, *more: Any, **named: Any) -> Any:
        output = original(module, query, key, value, *more, **named)
        seen.update(states.dtype for states in (query, key, value, output[0]))
        return output

    monkeypatch.setattr(text_attention, "sdpa_attention_forward", watched)
    monkeypatch.setattr(text_attention, "MAX_MATMUL_TOKENS", 4 if "long" in how else 256)
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
    monkeypatch.setattr(families, "FAMILIES", ())
    library = labels("bf16")
    assert len(items) == 200
    assert (packed != exact).sum() <= 1.3 * (library != exact).sum()


def test_the_models_own_attention_is_restored(tiny_model: str) -> None:
    model, _, _ = attached(tiny_model)
    with packing.attention(model):
        assert model.config._attn_implementation != "sdpa"
    assert model.config._attn_implementation == "sdpa"
