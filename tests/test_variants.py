"""The one case that every variant passes: it trains, proves itself, saves, and reloads to the same predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import save_tiny_model
from runs import plan_of, run_of

from whichlora import adapters, models
from whichlora.encoding import Encoder
from whichlora.errors import OptionError
from whichlora.evaluation import score
from whichlora.models import ModelShape
from whichlora.proof import adapter_modules
from whichlora.resolve import adapted_shapes, arm_values, resolve_modules
from whichlora.variants import CATALOGUE
from whichlora.variants.adalora import initial_rank

VARIANTS = list(CATALOGUE)
ADAPTERS = [name for name, variant in CATALOGUE.items() if variant.kind == "adapter"]


@pytest.mark.parametrize("task", ["atlas-nli", "atlas-qa"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_trains_and_reloads_to_its_logged_predictions(
    store: Path, tiny_model: str, variant: str, task: str
) -> None:
    epochs = {} if variant == "none" else {"epochs": 2}
    plan = plan_of(tiny_model, variant=variant, task=task, **epochs)
    weights_before = models.locate(tiny_model).digest
    result = run_of(plan)

    finished = mlflow.MlflowClient().get_run(result.run_id)
    assert finished.info.status == "FINISHED"
    assert {"test/en/f1", "test/tl/f1", "base/en/f1", "base/tl/f1", "gain/en", "gain/tl"} <= result.metrics.keys()
    models._digest.cache_clear()
    assert models.locate(tiny_model).digest == weights_before

    folder = Path(mlflow.artifacts.download_artifacts(run_id=result.run_id))
    model = _reloaded(variant, tiny_model, folder / "adapter")
    encoder = Encoder(plan.task, models.load_tokenizer(plan.source))
    for role, items in plan.mixture.test.items():
        logged = pd.read_parquet(folder / "predictions" / f"{role}.parquet")
        again = score(model, encoder, items, scoring=plan.spec.scoring, name=role)
        assert logged["predicted"].tolist() == again.predicted
        if again.probabilities is not None:
            columns = [f"p_{label}" for label in plan.task.labels]
            np.testing.assert_allclose(logged[columns], again.probabilities, atol=1e-4)
    if variant not in ("none",) and task == "atlas-nli":
        plain = _reloaded("none", tiny_model, folder)
        base = score(plain, encoder, plan.mixture.test["en"], scoring="likelihood", name="base")
        trained = score(model, encoder, plan.mixture.test["en"], scoring="likelihood", name="trained")
        assert np.abs(base.probabilities - trained.probabilities).max() > 1e-3


def _reloaded(variant: str, base: str, adapter: Path) -> Any:
    """Load as anyone would, without this project."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    place = str(adapter) if variant == "full" else base
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    return model if variant in ("full", "none") else PeftModel.from_pretrained(model, str(adapter))


@pytest.mark.parametrize("variant", ADAPTERS)
def test_an_adapter_touches_only_the_chosen_layers(store: Path, tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, variant=variant, layers="first:1,2", target_modules="q_proj,down_proj")
    result = run_of(plan)
    folder = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter")
    from safetensors import safe_open

    with safe_open(f"{folder}/adapter_model.safetensors", "pt") as file:
        adapted = {key.split(".layers.")[1].split(".")[0] for key in file.keys() if ".layers." in key}  # noqa: SIM118
    assert adapted == {"0", "2"}


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a model with as many decoder blocks as the papers' and nothing else of theirs."""
    folder = tmp_path_factory.mktemp("models") / "deep"
    return str(save_tiny_model(folder, num_hidden_layers=32, hidden_size=16, intermediate_size=16))


@pytest.mark.parametrize("variant", ADAPTERS)
def test_layers_are_counted_from_block_0_trained_alone_and_merged(deep_model: str, variant: str) -> None:
    forms = {
        "first:10,last:2": [*range(10), 30, 31],
        "last:2": [30, 31],
        "22-27,30-31": [*range(22, 28), 30, 31],
    }
    for text, blocks in forms.items():
        plan = plan_of(deep_model, variant=variant, layers=text, target_modules="q_proj,down_proj")
        torch.manual_seed(0)
        base = models.load_model(plan.source, precision="fp32", quantization="none")
        model, _, _ = adapters.attach(base, plan, total_steps=5)
        names = [f"model.layers.{n}.{part}" for n in blocks for part in ("self_attn.q_proj", "mlp.down_proj")]
        assert [name for name, _ in adapter_modules(model)] == names
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
        ids = torch.tensor([[5, 6, 7, 8]])
        expected = model.eval()(input_ids=ids).logits
        torch.testing.assert_close(model.merge_and_unload()(input_ids=ids).logits, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("variant", ADAPTERS)
@pytest.mark.parametrize("arm", ["recommended", "matched"])
def test_every_arm_of_an_adapter_has_values_and_a_source(variant: str, arm: str) -> None:
    values = arm_values(CATALOGUE[variant], arm)
    assert values is not None
    assert values.rank
    assert values.source
    assert (values.alpha is not None) == CATALOGUE[variant].has_alpha


def test_a_rank_beyond_the_width_is_refused_with_the_limit(tiny_model: str) -> None:
    with pytest.raises(OptionError, match="rank=17: must be at most 16"):
        plan_of(tiny_model, variant="pissa", rank=17)


def llama_8b() -> ModelShape:
    """Llama-3.1-8B's shape, without weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return models.shape_of(LlamaForCausalLM(config))


@pytest.mark.parametrize(
    ("variant", "rank", "modules", "expected"),
    [
        ("lora", 8, "all-linear", 20_971_520),
        ("rslora", 8, "all-linear", 20_971_520),
        ("pissa", 8, "all-linear", 20_971_520),
        ("dora", 16, "q_proj,k_proj,v_proj,up_proj,down_proj", 29_097_984),
        ("dora", 8, "all-linear", 22_347_776),
        ("vera", 256, "all-linear", 1_433_600),
        ("vera", 1024, "all-linear", 1_605_632),
    ],
)
def test_the_paper_s_parameter_counts_come_out(variant: str, rank: int, modules: str, expected: int) -> None:
    shape = llama_8b()
    names = resolve_modules(modules, shape, model="llama")
    shapes = adapted_shapes(shape, names, tuple(range(32)))
    declared = CATALOGUE[variant]
    assert declared.expected_parameters is not None
    assert declared.expected_parameters(shapes, rank, declared.options) == expected


def test_adalora_starts_above_its_budget() -> None:
    assert initial_rank(8, CATALOGUE["adalora"].options) == 12
