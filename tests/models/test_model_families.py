"""Other model families: sliding-window attention, capped logits, scaled embeddings, other layer names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from naive import ITEMS, naive
from runs import plan_of, run_of

from whichlora.config.hyperparameters import resolve_modules
from whichlora.data.batching import collate
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError
from whichlora.evaluation.generation import generate
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.models.adapter_layers import unwrap_peft
from whichlora.models.answer_logits import answer_loss
from whichlora.models.loading import blocks_of, load_model, load_tokenizer, locate, read_shape
from whichlora.models.pooling import pooled_states, states_at_sites
from whichlora.testing import save_tiny_model

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WINDOW = 8
WINDOWED: dict[str, Any] = {"head_dim": 8, "sliding_window": WINDOW, "num_hidden_layers": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"config": "LlamaConfig"},
    "qwen3": {"config": "Qwen3Config", "head_dim": 8},
    "gemma2": {"config": "Gemma2Config", **WINDOWED, "query_pre_attn_scalar": 8, "final_logit_softcapping": 5.0},
    "gemma3": {
        "config": "Gemma3TextConfig",
        **WINDOWED,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "mistral": {"config": "MistralConfig", **WINDOWED, "tie_word_embeddings": False},
    "phi3": {"config": "Phi3Config", "sliding_window": WINDOW},
    "gpt_neox": {"config": "GPTNeoXConfig"},
}
OWN_NAMES = {
    "phi3": ("o_proj", "qkv_proj", "gate_up_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Name of a family and folder of a tiny model of it."""
    name: str = request.param
    return name, str(save_tiny_model(tmp_path_factory.mktemp("families") / name, **FAMILIES[name]))


def adapted(folder: str) -> tuple[Any, Encoder]:
    """Return the model with a random LoRA on all its linear layers."""
    from peft import LoraConfig, get_peft_model

    source = locate(folder)
    model = load_model(source, precision="fp32", quantization="none")
    torch.manual_seed(1)
    names = list(read_shape(source).linears)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=names, task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
    return model.eval(), Encoder(NLI, load_tokenizer(source))


def test_one_run_of_lora_trains_proves_itself_reloads_and_is_scored(store: Path, family: tuple[str, str]) -> None:
    result = run_of(plan_of(family[1], variant="lora"))
    assert {"test/en/f1", "test/tl/f1", "base/en/f1", "gain/tl"} <= result.metrics.keys()


def test_module_sets_resolve_or_the_model_s_own_names_are_listed(family: tuple[str, str]) -> None:
    name, folder = family
    shape = read_shape(locate(folder))
    own = OWN_NAMES.get(name, SEVEN)
    assert resolve_modules("all-linear", shape, model=name) == own
    assert resolve_modules(own[-1], shape, model=name) == own[-1:]
    for wanted in (("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj"), SEVEN):
        if own == SEVEN:
            assert resolve_modules(wanted, shape, model=name) == tuple(part for part in SEVEN if part in wanted)
        else:
            with pytest.raises(OptionError, match=f"q_proj is not in the model; .* names from {', '.join(own)}"):
                resolve_modules(wanted, shape, model=name)


@torch.inference_mode()
def test_scoring_with_the_prefix_read_once_is_plain_and_merged_scoring(family: tuple[str, str]) -> None:
    model, encoder = adapted(family[1])
    assert len(encoder.tokenizer(NLI.prompt(ITEMS[0]).split(":")[0]).input_ids) > WINDOW  # the prefix outgrows it
    expected = np.log(naive(model, encoder, ITEMS))
    read_once = label_probabilities(model, encoder, ITEMS, name="cached")
    np.testing.assert_allclose(np.log(read_once), expected, atol=1e-3)
    merged = label_probabilities(model.merge_and_unload(), encoder, ITEMS, name="merged")
    np.testing.assert_allclose(np.log(merged), expected, atol=1e-3)


@torch.inference_mode()
def test_the_loss_of_the_answers_is_the_model_s_own_over_the_same_positions(family: tuple[str, str]) -> None:
    model, encoder = adapted(family[1])
    examples = [encoder.example(item) for item in ITEMS]
    own = 0.0
    for example in examples:
        batch = collate([example], 0)
        own += float(model(input_ids=batch["input_ids"], labels=batch["labels"]).loss) * len(example.answer)
    together, count = answer_loss(model, collate(examples, encoder.tokenizer.pad_token_id))
    assert count == sum(len(example.answer) for example in examples)
    assert float(together) == pytest.approx(own, rel=1e-5)


@torch.inference_mode()
def test_a_forward_pass_that_ends_at_a_block_is_the_full_one(family: tuple[str, str]) -> None:
    model, _ = adapted(family[1])
    blocks, words = blocks_of(unwrap_peft(model)), [[1, 5, 9, 12], [1, 7], [1, 30, 31]]
    for layer in range(len(unwrap_peft(model).get_submodule(blocks))):
        pooling = Pooling(layer)
        torch.testing.assert_close(
            pooled_states(model, blocks, words, pooling), states_at_sites(model, blocks, words, pooling)[0]
        )


@torch.inference_mode()
def test_what_is_generated_in_batches_is_the_likeliest_token_each_time(family: tuple[str, str]) -> None:
    model, nli = adapted(family[1])
    encoder = Encoder(QA, nli.tokenizer)
    items = [*QA.load("en", "test")[:3], QA.load("hi", "test")[0]]
    for item, text in zip(items, generate(model, encoder, items, name="test"), strict=True):
        prompt = encoder.prompt(item)
        ids = list(prompt)
        while len(ids) < len(prompt) + QA.answer_tokens:
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == encoder.tokenizer.eos_token_id:
                break
        written = encoder.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)
        assert text == written.partition("\n")[0].strip()


def test_a_model_without_linear_layers_can_be_trained_in_full_and_not_adapted(store: Path, tmp_path: Path) -> None:
    folder = str(save_tiny_model(tmp_path / "gpt2", config="GPT2Config"))
    with pytest.raises(OptionError, match=r"no torch\.nn\.Linear .* Conv1D.* full and none work"):
        plan_of(folder, variant="lora")
    assert "test/en/f1" in run_of(plan_of(folder, variant="full", learning_rate="0.001")).metrics


def test_a_model_that_reads_images_too_is_adapted_in_its_text_part_alone(tmp_path: Path) -> None:
    """What Gemma 3's larger models are, whose image encoder has layers of the same names and numbers."""
    from transformers import AutoModelForCausalLM, Gemma3Config

    text = {"head_dim": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    size = {"hidden_size": 32, "intermediate_size": 64}
    image = {"num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(
        text_config={**text, **size, "vocab_size": 100}, vision_config={**image, **size}, mm_tokens_per_image=4
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    shape = read_shape(locate(str(tmp_path)))
    assert shape.n_layers == 3
    assert shape.module_names() == list(SEVEN)
    assert len(shape.linears) == 3 * 7
    assert all("language_model.layers." in name for name in shape.linears)
