"""Running out of memory changes how many items go through the model at once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import plan_of
from transformers import LlamaForCausalLM

from whichlora.data.batching import by_length, in_order
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.errors import MemoryExhausted
from whichlora.evaluation import scoring_methods
from whichlora.evaluation.scores import score
from whichlora.models import forward_checks
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.models.memory import Divide, in_batches
from whichlora.training.trainer import TrainingResult, train


@contextmanager
def memory_for(monkeypatch: pytest.MonkeyPatch, fits: Callable[[Any, int], bool]) -> Iterator[list[int]]:
    """Simulate running out of memory in forward passes unless `fits(model, items)`; yield the sizes that passed.

    The error is raised after the pass, as in reality, when random numbers have been drawn already.
    """
    passed: list[int] = []
    forward = LlamaForCausalLM.forward

    @wraps(forward)  # `generate` looks for `position_ids` among the parameters
    def limited(self: Any, input_ids: torch.Tensor, **arguments: Any) -> Any:
        output = forward(self, input_ids=input_ids, **arguments)
        items = len(arguments["layout"].paths if "layout" in arguments else input_ids)
        if not fits(self, items):
            raise torch.OutOfMemoryError("simulated")
        passed.append(items)
        return output

    with monkeypatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", limited)
        # A few tokens at loading, which always fit.
        patch.setattr(forward_checks, "check_causal", lambda *_, **__: None)
        yield passed


def trained(
    model: str, work: Path, **options: Any
) -> tuple[TrainingResult, list[tuple[int, float]], dict[str, torch.Tensor]]:
    """Train without tracking; return the result, the losses by step, and the trained tensors."""
    plan = plan_of(model, **options)
    encoder = Encoder(plan.task, plan.tokenizer)
    losses: list[tuple[int, float]] = []
    work.mkdir()
    examples = [encoder.example(item) for item in plan.mixture.train]
    fitted = train(plan, examples, work, validate=lambda model, step: 0.0, on_losses=losses.extend)
    assert fitted is not None
    tensors = {n: p.detach().clone() for n, p in fitted.model.named_parameters() if p.requires_grad}
    return fitted, losses, tensors


def assert_same(one: Any, other: Any) -> None:
    assert [step for step, _ in one[1]] == [step for step, _ in other[1]]
    assert [loss for _, loss in one[1]] == pytest.approx([loss for _, loss in other[1]], rel=1e-4)
    for name, tensor in one[2].items():
        torch.testing.assert_close(tensor, other[2][name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("variant", ["lora", "adalora"])  # the latter adds a penalty to each step
def test_the_micro_batch_changes_neither_losses_nor_adapter(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    whole = trained(tiny_model, tmp_path / "whole", variant=variant)
    for size in (1, 2, 4) if variant == "lora" else (3,):
        monkeypatch.setattr("whichlora.training.trainer.MICRO_BATCH", size)
        assert_same(trained(tiny_model, tmp_path / str(size), variant=variant), whole)


def test_a_run_that_ran_out_of_memory_ends_like_one_with_small_micro_batches(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With dropout, so that the random state counts too."""
    options = {"arm": "recommended", "epochs": 1}
    with memory_for(monkeypatch, lambda model, items: items <= 2) as passed:
        halved = trained(tiny_model, tmp_path / "halved", **options)
    assert (halved[0].micro_batch, halved[0].checkpointing) == (2, False)
    assert set(passed) == {2}
    assert sum(passed) == halved[0].examples  # no item twice
    said = capsys.readouterr().err
    assert "with 8 items at a time; continuing with 4" in said
    assert "with 4 items at a time; continuing with 2" in said
    monkeypatch.setattr("whichlora.training.trainer.MICRO_BATCH", 2)
    small = trained(tiny_model, tmp_path / "small", **options)
    assert halved[1] == small[1]
    assert all(torch.equal(tensor, small[2][name]) for name, tensor in halved[2].items())


def test_memory_that_runs_out_late_costs_no_step(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10**6))
    whole = trained(tiny_model, tmp_path / "whole")
    with memory_for(monkeypatch, lambda model, items: items <= 4 or next(calls) < 3):
        late = trained(tiny_model, tmp_path / "late")
    assert late[0].micro_batch == 4
    assert_same(late, whole)


@pytest.mark.slow
def test_gradient_checkpointing_comes_last_and_changes_nothing(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(tiny_model, tmp_path / "whole")
    with memory_for(monkeypatch, lambda model, items: model.is_gradient_checkpointing) as passed:
        saved = trained(tiny_model, tmp_path / "saved")
    assert (saved[0].micro_batch, saved[0].checkpointing) == (1, True)
    assert set(passed) == {1}
    assert_same(saved, whole)


def test_one_item_that_does_not_fit_is_the_end(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = memory_for(monkeypatch, lambda model, items: False)
    with never, pytest.raises(MemoryExhausted, match=r"out of memory: one training item .* gradient checkpointing"):
        trained(tiny_model, tmp_path / "none")


def test_scoring_halves_its_batches_and_answers_the_same(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = locate(tiny_model)
    model = load_model(source, precision="fp32", quantization="none")
    for name in ("atlas-nli", "atlas-qa"):
        encoder = Encoder(get_task(name), load_tokenizer(source))
        items, way = encoder.task.load("en", "test")[:11], scoring_methods.prompt_scoring(encoder.task)
        expected = score(model, encoder, items, scoring=way, name="whole")
        with memory_for(monkeypatch, lambda model, items: items <= 3) as passed:
            halved = score(model, encoder, items, scoring=way, name="halved")
        assert max(passed) <= 3
        assert halved.predicted == expected.predicted
        if expected.probabilities is not None:
            np.testing.assert_allclose(halved.probabilities, expected.probabilities, atol=1e-5)


@pytest.mark.parametrize("divide", [by_length, in_order])
def test_batches_become_smaller_until_they_fit_and_each_position_comes_once(divide: Divide) -> None:
    seen: list[int] = []

    def work(batch: list[int]) -> None:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("simulated")
        seen.extend(batch)

    in_batches([5 + i % 7 for i in range(50)], work, max_tokens=1000, max_items=20, divide=divide)
    assert sorted(seen) == list(range(50))
    with pytest.raises(MemoryExhausted, match="one item does not fit"):
        in_batches([9], lambda batch: work([0] * 4), max_tokens=1000, max_items=20)
