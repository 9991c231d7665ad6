"""The LM head is applied at the positions that predict answers alone, in every part of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import plan_of, run_of
from torch.nn.modules.module import register_module_forward_pre_hook

from whichlora.testing import save_tiny_model
from whichlora.training import adapter, base_cache

GEMMA: dict[str, Any] = {
    "config": "Gemma3TextConfig",
    **{"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16, "num_hidden_layers": 2},
    "layer_types": ["sliding_attention", "full_attention"],
}
CHECKED = 12
"""Most tokens of the texts that show whether a model is causal and what can be cached, whose logits are all needed."""


class HeadRows:
    """Records for every pass texts and tokens, and the positions at which the LM head computes all logits."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary, self.passes = vocabulary, []
        self.shape: tuple[int, ...] = ()

    def __call__(self, module: Any, arguments: tuple[Any, ...]) -> None:
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == self.vocabulary:
            self.shape = tuple(arguments[0].shape)
        elif isinstance(module, torch.nn.Linear) and module.out_features == self.vocabulary:
            if "forward" in vars(module):
                return  # restricted to the tokens of the labels
            self.passes.append((self.shape, arguments[0].shape[:-1].numel()))


@pytest.mark.parametrize(
    ("variant", "task", "packed"),
    [
        ("lora", "atlas-nli", True),
        pytest.param("lora", "atlas-qa", True, marks=pytest.mark.slow),
        pytest.param("eva", "atlas-nli", False, marks=pytest.mark.slow),
    ],
)
def test_no_part_of_a_run_computes_logits_of_prompts(
    store: Path, tmp_path: Path, variant: str, task: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichlora.models.packing import families

    folder = save_tiny_model(tmp_path / "model", **GEMMA)
    if not packed:
        monkeypatch.setattr(families, "FAMILIES", ())
    plan = plan_of(folder, variant=variant, task=task, learning_rate="0.01", train_size=16)
    rows = HeadRows(len(plan.tokenizer))
    hook = register_module_forward_pre_hook(rows)
    try:
        run_of(plan)
    finally:
        hook.remove()
    sizes = [(texts, tokens, count) for (texts, tokens), count in rows.passes if texts * tokens > CHECKED]
    assert len(sizes) >= 2
    assert not [size for size in sizes if size[1] > 1 and size[2] > size[0] * size[1] / 3]
    assert packed == any(texts == 1 and tokens > 100 for texts, tokens, _ in sizes)


def test_the_embedding_of_a_frozen_base_has_no_gradient(tmp_path: Path) -> None:
    from whichlora.training.objectives import objective_of

    plan = plan_of(save_tiny_model(tmp_path / "model", **GEMMA), variant="lora", learning_rate="0.01")
    model, _, _ = adapter.attach(base_cache.checkout(plan), plan, total_steps=2)
    objective = objective_of(plan).optimized_for(model)
    examples = [objective.example(plan.encoder(), item) for item in plan.mixture.train[:4]]
    states: list[torch.Tensor] = []
    embedding = model.get_base_model().get_input_embeddings()
    hook = embedding.register_forward_hook(lambda module, arguments, output: states.append(output))
    with objective.batch_context(model):
        objective.loss(model, examples).backward()
    hook.remove()
    assert not states[0].requires_grad
    assert embedding.weight.grad is None
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.grad is not None} == {"lora_A", "lora_B"}
