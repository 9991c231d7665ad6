"""LongRoPE uses its long factors for all texts of a batch if one is long: short and long texts are read apart."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from naive import ITEMS, naive
from runs import plan_of, run_of

from whichlora.data.encoding import Encoded, Encoder
from whichlora.data.tasks import get_task
from whichlora.data.word_pooling import Pooling
from whichlora.evaluation import generation
from whichlora.evaluation.likelihood import answer_log_likelihood, label_probabilities
from whichlora.models.loading import load_model, load_tokenizer, locate, read_shape
from whichlora.models.packing import can_pack
from whichlora.models.pooling import pooled_states
from whichlora.models.rope_switch import sides, switch_length
from whichlora.testing import save_tiny_model
from whichlora.training.objectives import AnswerTokens

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")


def save(folder: Path, switch: int, config: str = "Phi3Config") -> str:
    """Save a tiny model whose long factors change the logits of texts of more than `switch` tokens."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    fields = {"rope_parameters": {**rope, "original_max_position_embeddings": switch}}
    return str(save_tiny_model(folder, config=config, original_max_position_embeddings=switch, **fields))


@pytest.fixture(scope="module", params=["Phi3Config", "LlamaConfig", "ArceeConfig"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Encoder]:
    """A model whose switch divides the prompts of `ITEMS`, and its encoder; the last family is not packed."""
    folder = tmp_path_factory.mktemp("longrope")
    tokenizer = load_tokenizer(locate(str(save_tiny_model(folder / "plain"))))
    lengths = [len(Encoder(NLI, tokenizer).prompt(item)) for item in ITEMS]
    # With a label, the prompt of just this length would be on the other side.
    switch = next(length for length in range(int(median(lengths)), 1000) if length not in lengths)
    assert min(lengths) < switch < max(lengths)
    source = locate(save(folder / request.param, switch, request.param))
    model = load_model(source, precision="fp32", quantization="none").eval()
    assert switch_length(model.config) == read_shape(source).switch == switch
    assert can_pack(model) == (request.param != "ArceeConfig")
    return model, Encoder(NLI, tokenizer)


def test_sides() -> None:
    assert sides([3, 9, 4, 5, 1], 4) == [[0, 2, 4], [1, 3]]
    assert sides([3, 4], 4) == sides([3, 4], None) == [[0, 1]]
    assert sides([5], 4) == [[0]]
    assert sides([], 4) == []


@torch.inference_mode()
def test_scores_are_those_of_each_text_alone(tiny: tuple[Any, Encoder]) -> None:
    model, encoder = tiny
    np.testing.assert_allclose(
        np.log(label_probabilities(model, encoder, ITEMS, name="test")), np.log(naive(model, encoder, ITEMS)), atol=1e-3
    )
    examples = [encoder.example(item) for item in ITEMS]
    together = answer_log_likelihood(model, encoder, examples, name="test")
    alone = [answer_log_likelihood(model, encoder, [example], name="test")[0] for example in examples]
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_losses_and_gradients_are_the_sums_of_those_of_each_text_alone(tiny: tuple[Any, Encoder]) -> None:
    model, encoder = tiny
    examples = [encoder.example(item) for item in ITEMS]
    objective = AnswerTokens(encoder.tokenizer.pad_token_id).optimized_for(model)
    weight = next(p for name, p in model.named_parameters() if name.endswith("layers.0.self_attn.o_proj.weight"))

    def total(batches: list[list[Encoded]]) -> tuple[float, torch.Tensor]:
        weight.grad = None
        losses = []
        for batch in batches:
            with objective.batch_context(model):
                loss = objective.loss(model, batch)
                loss.backward()
            losses.append(float(loss.detach()))
        assert weight.grad is not None
        return sum(losses), weight.grad

    (loss, gradient), (expected, expected_gradient) = total([examples]), total([[example] for example in examples])
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["Phi3Config", pytest.param("ArceeConfig", marks=pytest.mark.slow)])
@torch.inference_mode()
def test_generated_answers_are_those_of_each_text_read_whole(tmp_path: Path, config: str) -> None:
    """Also those during which a text becomes longer than the switch."""
    tokenizer = load_tokenizer(locate(str(save_tiny_model(tmp_path / "plain"))))
    encoder = Encoder(QA, tokenizer)
    items = sorted([*QA.load("en", "test")[:9], *QA.load("hi", "test")[:9]], key=lambda item: len(encoder.prompt(item)))
    items = [*items[:2], items[9], *items[-2:]]
    switch = len(encoder.prompt(items[2])) + 2
    model = load_model(locate(save(tmp_path / "long", switch, config)), precision="fp32", quantization="none").eval()
    groups = generation._apart(model, [len(encoder.prompt(item)) for item in items], QA.answer_tokens)
    assert [how.cached for _, how in groups] == [True, True, False]
    for item, text in zip(items, generation.generate(model, encoder, items, name="test"), strict=True):
        prompt = encoder.prompt(item)
        ids = list(prompt)
        while len(ids) < len(prompt) + QA.answer_tokens:
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode(ids[-1:]):
                break
        assert text == tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).partition("\n")[0].strip()


def test_pooled_states_are_those_of_each_text_alone(tiny: tuple[Any, Encoder]) -> None:
    model, encoder = tiny
    texts = [encoder.prompt(item) for item in ITEMS]
    together = pooled_states(model, "model.layers", texts, Pooling(1))
    alone = torch.cat([pooled_states(model, "model.layers", [text], Pooling(1)) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_a_run_with_texts_on_both_sides_finishes(store: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", 80)
    assert "test/en/f1" in run_of(plan_of(folder, variant="lora")).metrics
