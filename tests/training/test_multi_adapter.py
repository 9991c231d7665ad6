"""A joint pass of several runs gives each the gradients that it would get alone."""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from methods import cases
from runs import moved, plan_of

from whichlora.data.encoding import Encoder
from whichlora.errors import OptionError
from whichlora.models import packing
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.answer_logits import answer_loss
from whichlora.models.kernels.fast_paths import TrainingPaths
from whichlora.models.loading import copy_sharing_weights, load_model, locate
from whichlora.testing import save_tiny_model
from whichlora.training.multi_adapter import Batch, backward_together, parse_pack, try_together
from whichlora.variants import CATALOGUE

REFUSED = {
    "pissa": "changes the base weights",
    "olora": "changes the base weights",
    "lora-ga": "changes the base weights",
    "corda": "changes the base weights",
    "full": "changes the base weights",
    "molf": "changes the base weights",
    "hybrid-lora": "changes the base weights",
    "ia3": "changes the inputs of the base layers",
    "oft": "changes the inputs of the base layers",
    "lily": "reads all tokens of its batch",
}
JOINING = [name for name in CATALOGUE if name not in {*REFUSED, "none"}]
"""`none` takes no training steps, so it is accepted and never joins."""


def alone(batch: Batch) -> tuple[dict[str, torch.Tensor], float]:
    batch.model.zero_grad()
    with packing.attention(batch.model):
        loss, _ = answer_loss(batch.model, packing.pack(batch.examples, share=True))
        (loss / batch.count).backward()
    return gradients(batch.model), loss.item()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@lru_cache
def base_of(folder: str) -> Any:
    return load_model(locate(folder), precision="fp32", quantization="none")


def batch_of(folder: str, start: int, items: int, **options: Any) -> Batch:
    plan = plan_of(folder, learning_rate="0.001", **options)
    encoder = Encoder(plan.task, plan.tokenizer)
    examples = [encoder.example(item) for item in plan.mixture.train[start : start + items]]
    count = sum(len(e.answer) for e in examples)
    model = moved(plan, base=copy_sharing_weights(base_of(folder))).train()
    layers = dict(adapter_modules(model))
    return Batch(
        model=model,
        layers=layers,
        examples=examples,
        count=count,
        paths=TrainingPaths((), {}, ()),
        autocast=nullcontext,
    )


@pytest.mark.parametrize("variant", cases(JOINING))
def test_gradients_are_those_of_each_alone(tiny_model: str, variant: str) -> None:
    batches = [
        batch_of(tiny_model, 0, 5, variant="dora", target_modules="q_proj,v_proj"),
        batch_of(tiny_model, 5, 3, variant=variant),
        batch_of(tiny_model, 9, 1, variant="lora", seed=7),
        batch_of(tiny_model, 12, 2, variant=variant, seed=8),
    ]
    expected = [alone(batch) for batch in batches]
    for batch in batches:
        batch.model.zero_grad()
    losses = backward_together(batches)
    for batch, loss, (expected_gradients, expected_loss) in zip(batches, losses, expected, strict=True):
        assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
        actual = gradients(batch.model)
        assert actual.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            assert (actual[name] - gradient).norm() <= 6e-5 * gradient.norm(), name


@pytest.mark.parametrize("variant", CATALOGUE)
def test_what_cannot_join_is_refused_with_the_reason(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, learning_rate="0.001", variant=variant)
    if variant in (*JOINING, "none"):
        assert parse_pack("3", [plan]) == 3
        return
    with pytest.raises(OptionError, match=f"pack=3: must be 1 with {variant} .*: {variant} {REFUSED[variant]}"):
        parse_pack("3", [plan])
    assert parse_pack("1", [plan]) == 1


def test_dropout_and_other_losses_are_refused(tiny_model: str) -> None:
    with pytest.raises(OptionError, match=r"dropout 0\.1 needs a random mask for each run"):
        parse_pack("2", [plan_of(tiny_model, variant="lora", arm="recommended")])
    with pytest.raises(OptionError, match="task align-words is not trained with the cross-entropy"):
        parse_pack("2", [plan_of(tiny_model, variant="lora", task="align-words", train_size="auto", test_size="auto")])
    with pytest.raises(OptionError, match="pack=0: must be a whole number from 1 to 64"):
        parse_pack("0", [])
    with pytest.raises(OptionError, match="batches of 32 are split into micro-batches of at most 16"):
        parse_pack("2", [plan_of(tiny_model, variant="lora", batch_size="32")])


def test_runs_of_several_models_are_refused(tiny_model: str, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", num_hidden_layers=2)
    plans = [plan_of(folder, variant="lora") for folder in (tiny_model, str(other))]
    with pytest.raises(OptionError, match="must be 1 with several models: all runs of a pass share one"):
        parse_pack("2", plans)
    with pytest.raises(AssertionError, match="several base models"):
        backward_together([batch_of(folder, 0, 1, variant="lora") for folder in (tiny_model, str(other))])


@pytest.mark.parametrize("faulty", [0, 1])
def test_no_gradient_is_left_of_a_pass_in_which_one_is_not_finite(
    tiny_model: str, capsys: pytest.CaptureFixture[str], faulty: int
) -> None:
    """Both losses are finite, but through the padding of the second run's texts its NaN reaches the first run, too."""
    batches = [batch_of(tiny_model, 8 * k, 4 + k, variant="lora", seed=str(k)) for k in (0, 1)]
    name = next(name for name in batches[faulty].layers if name.endswith("layers.1.mlp.down_proj"))

    def nan_gradient(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output.register_hook(lambda gradient: torch.full_like(gradient, torch.nan))
        return output

    batches[faulty].layers[name].lora_B["default"].register_forward_hook(nan_gradient)
    assert try_together(batches) == []
    assert not any(gradients(batch.model) for batch in batches)
    assert "A pass of 2 runs failed (a loss or gradient is not finite)" in capsys.readouterr().err
    healthy, _ = alone(batches[1 - faulty])
    assert all(bool(gradient.isfinite().all()) for gradient in healthy.values())
