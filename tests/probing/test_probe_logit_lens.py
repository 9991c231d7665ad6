"""The logit lens: every way of decoding hidden states gives the same tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, VeraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from whichlora.errors import NonFiniteError, ProofError
from whichlora.models.loading import shape_of
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.language.logit_lens import LogitLens, top_tokens
from whichlora.testing import save_tiny_model

SEQUENCES = [[5, 17, 80, 80, 3], [5, 17, 80, 9, 44, 21, 7], [100, 2]]
EVERYWHERE = [list(range(len(s))) for s in SEQUENCES]


@pytest.fixture
def model(tiny_model: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


def lens_of(model: Any, **choices: Any) -> LogitLens:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return LogitLens(model, shape_of(base).blocks, LanguageChoices(**choices))


def own_predictions(model: Any, sequence: list[int]) -> list[int]:
    with torch.inference_mode():
        predicted: list[int] = model(torch.tensor([sequence])).logits[0].argmax(-1).tolist()
    return predicted


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_the_best_of_chunks_are_the_best_of_all(k: int, chunk: int) -> None:
    torch.manual_seed(0)
    states, weight, bias = torch.randn(20, 8), torch.randn(150, 8), torch.randn(150)
    whole = torch.nn.functional.linear(states, weight, bias).topk(k).indices
    assert top_tokens(states, weight, bias, k, chunk).tolist() == whole.tolist()


def test_of_equal_logits_the_first_chunk_wins() -> None:
    weight = torch.tensor([[0.0], [1.0], [0.5], [1.0]])
    assert top_tokens(torch.ones(1, 1), weight, None, 1, chunk=2).tolist() == [[1]]


@pytest.mark.parametrize("final_norm", [True, False])
def test_the_last_layer_is_the_models_own_prediction(model: Any, final_norm: bool) -> None:
    for sequence, tokens in zip(
        SEQUENCES, lens_of(model, final_norm=final_norm).decode(SEQUENCES, EVERYWHERE), strict=True
    ):
        assert tokens.shape == (3, len(sequence), 1)
        assert tokens[-1, :, 0].tolist() == own_predictions(model, sequence)


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 256}),
        ("Qwen3Config", {"head_dim": 8}),
        ("Gemma2Config", {"head_dim": 8, "sliding_window": 64}),
        ("GPTNeoXConfig", {}),
    ],
)
def test_other_families_too(tmp_path: Any, config: str, fields: dict[str, Any]) -> None:
    other = AutoModelForCausalLM.from_pretrained(save_tiny_model(tmp_path / "other", config=config, **fields)).eval()
    lens = lens_of(other)
    lens.verify(SEQUENCES[1])
    assert lens.decode(SEQUENCES, EVERYWHERE)[1][-1, :, 0].tolist() == own_predictions(other, SEQUENCES[1])


def test_inner_layers_match_the_hidden_states_of_transformers(model: Any) -> None:
    with torch.inference_mode():
        states = model(torch.tensor(SEQUENCES[1:2]), output_hidden_states=True).hidden_states
        expected = [model.lm_head(model.model.norm(states[i + 1][0])).argmax(-1).tolist() for i in range(2)]
        raw = model.lm_head(states[1][0]).argmax(-1).tolist()
    (tokens,) = lens_of(model).decode(SEQUENCES[1:2], EVERYWHERE[1:2])
    assert tokens[:2, :, 0].tolist() == expected
    (tokens,) = lens_of(model, final_norm=False).decode(SEQUENCES[1:2], EVERYWHERE[1:2])
    assert tokens[0, :, 0].tolist() == raw


@pytest.mark.parametrize("top_k", [1, 3])
def test_the_batch_does_not_matter(model: Any, top_k: int) -> None:
    lens = lens_of(model, top_k=top_k)
    together = lens.decode(SEQUENCES, EVERYWHERE)
    for sequence, wanted, tokens in zip(SEQUENCES, EVERYWHERE, together, strict=True):
        (alone,) = lens.decode([sequence], [wanted])
        assert (alone == tokens).all()


def test_only_the_requested_positions_are_decoded(model: Any) -> None:
    lens = lens_of(model)
    everything, some = lens.decode(SEQUENCES, EVERYWHERE), lens.decode(SEQUENCES, [[4], [], [0, 1]])
    assert [tokens.shape[1] for tokens in some] == [1, 0, 2]
    assert (some[0] == everything[0][:, [4]]).all()


def test_common_prefixes_are_decoded_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from whichlora.probing.language import logit_lens

    rows = []

    def counted(states: Any, *arguments: Any) -> Any:
        rows.append(len(states))
        return top_tokens(states, *arguments)

    monkeypatch.setattr(logit_lens, "top_tokens", counted)
    lens_of(model).decode(SEQUENCES, EVERYWHERE)
    assert rows == [sum(map(len, SEQUENCES)) - 3] * 3


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules="all-linear"),
        LoraConfig(r=4, target_modules="all-linear", use_dora=True),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"),
        VeraConfig(r=4, target_modules="all-linear"),
    ],
    ids=["lora", "dora", "pissa", "vera"],
)
def test_a_merged_adapter_decodes_the_same_as_an_unmerged_one(model: Any, config: Any) -> None:
    torch.manual_seed(1)
    plain = lens_of(model).decode(SEQUENCES, EVERYWHERE)
    adapted = get_peft_model(model, config).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    beside = lens_of(adapted).decode(SEQUENCES, EVERYWHERE)
    merged = lens_of(adapted.merge_and_unload()).decode(SEQUENCES, EVERYWHERE)
    for one, other in zip(beside, merged, strict=True):
        assert (one == other).all()
    assert any((one != other).any() for one, other in zip(beside, plain, strict=True))


def test_bf16_counts_how_often_it_differs_from_fp32(model: Any) -> None:
    sequences = [list(range(3, 200)), list(range(300, 500))]
    everywhere = [list(range(len(s))) for s in sequences]
    exact, rough = lens_of(model), lens_of(model, arithmetic="bf16")
    one, other = exact.decode(sequences, everywhere), rough.decode(sequences, everywhere)
    differing = sum(int((a != b).sum()) for a, b in zip(one, other, strict=True)) / sum(a.size for a in one)
    assert rough.compared >= 3 * 397 // 16
    assert rough.differing / rough.compared == pytest.approx(differing, abs=0.1)
    assert (exact.compared, exact.differing) == (0, 0)


def test_logits_that_bf16_cannot_tell_apart_are_one_prediction(model: Any) -> None:
    model = model.bfloat16()
    with torch.no_grad():
        weight = model.lm_head.weight
        half = len(weight) // 2
        weight[half : 2 * half] = weight[:half]
        weight[half : 2 * half, 0] *= 1 + torch.finfo(torch.bfloat16).eps
    sequence = list(range(3, 123))
    lens = lens_of(model)
    (decoded,) = lens.decode([sequence], [range(len(sequence))])
    same = sum(a == b for a, b in zip(decoded[-1, :, 0].tolist(), own_predictions(model, sequence), strict=True))
    assert same < 0.95 * len(sequence)
    lens.verify(sequence)


def test_a_model_with_something_else_before_its_head_is_refused(model: Any) -> None:
    model.model.norm.register_forward_hook(lambda module, arguments, output: -output)
    inner = model.model.norm

    class Outside(torch.nn.Module):
        def forward(self, states: Any) -> Any:
            return inner(states)

    model.model.norm = Outside()  # which is not recognised as a norm
    with pytest.raises(ProofError, match="own prediction at"):
        lens_of(model).verify(SEQUENCES[1])


@pytest.mark.parametrize(("part", "match"), [("block", "states after block 1"), ("head", "logits that the LM head")])
def test_states_and_logits_that_are_not_finite_are_refused(model: Any, part: str, match: str) -> None:
    with torch.no_grad():
        if part == "block":
            model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
        else:
            model.lm_head.weight[500, 0] = torch.nan  # tied to the embeddings, but no sequence has this token
    for top_k in (1, 3):
        with pytest.raises(NonFiniteError, match=match):
            lens_of(model, top_k=top_k).decode(SEQUENCES, EVERYWHERE)
