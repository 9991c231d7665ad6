"""Texts longer than a layer's window are packed, scored and continued as they are when read alone."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from naive import ITEMS, naive
from transformers import AutoModelForCausalLM, Gemma3Config

from whichlora.data.batching import collate
from whichlora.data.encoding import Encoded, Encoder
from whichlora.data.tasks import get_task
from whichlora.evaluation.generation import greedy_continuations
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.answer_logits import answer_logits
from whichlora.models.kernels.fast_paths import TrainingPaths
from whichlora.models.loading import copy_sharing_weights, load_tokenizer, locate
from whichlora.models.packing import text_attention
from whichlora.testing import save_tiny_model
from whichlora.training.micro_batches import set_checkpointing
from whichlora.training.multi_adapter import Batch, backward_together

WINDOW = 8
GEMMA: dict[str, Any] = {
    "config": "Gemma3TextConfig",
    **{"head_dim": 8, "query_pre_attn_scalar": 5, "sliding_window": WINDOW, "num_hidden_layers": 4},
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}
LENGTHS = {
    "shorter": [3, 7, 6],
    "equal": [8, 8],
    "one longer": [9, 9],
    "two longer": [10, 10],
    "several times": [24, 40],
    "all": [3, 7, 8, 9, 10, 24, 40, 33],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("gemma") / "model", **GEMMA))


@pytest.fixture
def model(folder: str) -> Any:
    loaded = AutoModelForCausalLM.from_pretrained(folder).double().train()
    with torch.no_grad():  # Gemma's norms multiply by 1 + weight, which is 1 at first
        for name, parameter in loaded.named_parameters():
            if "norm" in name:
                parameter.normal_(std=0.2)
    return loaded


def texts_of(lengths: list[int]) -> list[Encoded]:
    """Return texts with answers of two tokens; every second text begins with the same tokens."""
    generator = torch.Generator().manual_seed(sum(lengths))
    start = torch.randint(5, 250, (40,), generator=generator).tolist()
    texts = []
    for number, length in enumerate(lengths):
        same = 0 if number % 2 else max(0, length - 4)
        ids = start[:same] + torch.randint(5, 250, (length - same,), generator=generator).tolist()
        texts.append(Encoded(ids[:-2], ids[-2:]))
    return texts


def outcome(model: Any, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Return loss, logits at the answers, and gradients; the norms compute in fp32."""
    model.zero_grad()
    with packing.attention(model) if "layout" in batch else nullcontext():
        logits, targets = answer_logits(model, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
        loss.backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [loss.detach(), logits.detach(), *grads]


def assert_equal(ours: list[torch.Tensor], theirs: list[torch.Tensor], limit: float = 1e-6) -> None:
    size = max(float(tensor.norm()) for tensor in theirs[2:])
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(ours[2:], theirs[2:], strict=True):
        assert float((one - other).norm()) < limit * size


@pytest.mark.parametrize("lengths", LENGTHS)
def test_packed_texts_have_the_logits_loss_and_gradients_of_padded_ones_and_of_each_alone(
    model: Any, lengths: str
) -> None:
    texts = texts_of(LENGTHS[lengths])
    alone = [outcome(model, collate([text], 0)) for text in texts]
    summed = [torch.stack(tensors).sum(0) for tensors in zip(*(one[2:] for one in alone), strict=True)]
    expected = [sum(one[0] for one in alone), torch.cat([one[1] for one in alone]), *summed]
    assert_equal(outcome(model, collate(texts, 0)), expected)
    for share in (True, False):
        assert_equal(outcome(model, packing.pack(texts, share=share)), expected)
    set_checkpointing(model, on=True)
    assert_equal(outcome(model, packing.pack(texts)), expected)


@pytest.mark.parametrize(("longest", "window_matters"), [(WINDOW + 1, False), (WINDOW + 2, True)])
def test_the_window_matters_from_the_first_token_beyond_it(model: Any, longest: int, window_matters: bool) -> None:
    """The last token of a text predicts nothing, so that its keys do not matter."""
    batch = packing.pack(texts_of([longest - 3, longest]))
    limited = outcome(model, batch)
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    unlimited = outcome(model, batch)
    assert torch.equal(limited[1], unlimited[1]) != window_matters


@pytest.mark.parametrize("tokens", [0, 256], ids=["torch's kernel", "matrix products"])
def test_scores_in_bf16_are_those_of_fp32_up_to_rounding(
    model: Any, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_attention, "MAX_MATMUL_TOKENS", tokens)
    texts = texts_of(LENGTHS["all"])
    model.float()
    exact = outcome(model, collate(texts, 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours, theirs = (outcome(model, batch) for batch in (packing.pack(texts), collate(texts, 0)))
    for mine, library, reference in zip(ours, theirs, exact, strict=True):
        assert float((mine - reference).norm()) < 0.01 * float(reference.norm()) + 1.5 * float(
            (library - reference).norm()
        )


@torch.inference_mode()
def test_a_text_that_outgrows_the_window_while_it_is_continued_is_continued_as_if_read_whole(model: Any) -> None:
    model.eval()
    prompts = [text.prompt + text.answer for text in texts_of([4, 7, 8, 9, 30])]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    cache = packing.prefill(model, prompts, room=12)
    found = greedy_continuations(model, ids, mask, 0, new_tokens=12, ends=(), cache=cache)[:, longest:].tolist()
    for prompt, continuation in zip(prompts, found, strict=True):
        text = list(prompt)
        while len(text) < len(prompt) + 12:
            text.append(int(model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1].argmax()))
        assert continuation == text[len(prompt) :]


@torch.inference_mode()
def test_labels_of_items_that_share_a_prefix_longer_than_the_window(folder: str, model: Any) -> None:
    encoder = Encoder(get_task("atlas-nli"), load_tokenizer(locate(folder)))
    assert packing.can_pack(model.eval())
    expected = naive(model, encoder, ITEMS)
    assert label_probabilities(model, encoder, ITEMS, name="test") == pytest.approx(expected, abs=1e-6)


def test_runs_in_one_pass_have_the_gradients_of_each_alone(model: Any) -> None:
    from peft import LoraConfig, get_peft_model

    batches = []
    for seed, lengths in enumerate(([9, 24, 5], [40, 8], [7])):
        torch.manual_seed(seed)
        settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        adapted = get_peft_model(copy_sharing_weights(model), settings).double().train()
        layers, paths = dict(adapter_modules(adapted)), TrainingPaths((), {}, ())
        texts = texts_of(lengths)
        batches.append(Batch(model=adapted, layers=layers, examples=texts, count=1, paths=paths, autocast=nullcontext))
    expected = [outcome(batch.model, packing.pack(batch.examples)) for batch in batches]
    for batch in batches:
        batch.model.zero_grad()
    losses = backward_together(batches)
    for batch, loss, alone in zip(batches, losses, expected, strict=True):
        grads = [p.grad for p in batch.model.parameters() if p.grad is not None]
        assert_equal([loss, alone[1], *grads], alone)


def test_a_model_that_reads_images_too_is_packed_by_its_text_part(tmp_path: Path) -> None:
    size = {"hidden_size": 32, "intermediate_size": 64}
    text = {**size, **GEMMA, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 260}
    image = {**size, "num_hidden_layers": 1, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    del text["config"]
    torch.manual_seed(0)
    config = Gemma3Config(text_config=text, vision_config=image, mm_tokens_per_image=4)
    model = AutoModelForCausalLM.from_config(config).double().train()
    assert packing.can_pack(model)
    texts = texts_of(LENGTHS["all"])
    assert_equal(outcome(model, packing.pack(texts)), outcome(model, collate(texts, 0)))
