"""MoLF and MoLF-Efficient on the tiny model: what is trained, what is saved, and the record of the routing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import torch
from runs import PAIRS, plan_of, run_of

from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.errors import OptionError, ProofError
from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.loading import load_model
from whichlora.testing.runs import SMALL, predictions_of
from whichlora.testing.variant_runs import check_resuming, reload_with_peft
from whichlora.training import adapter
from whichlora.training.verification import prove_trained, trainable_tensors
from whichlora.variants import CATALOGUE
from whichlora.variants.methods.molf import expert_ranks

BOTH = ("molf", "molf-efficient")
IDS = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(0))
LORA_WINS_SOMEWHERE = {"alpha": 32}
"""A random model has gradients without outliers, so at LoRA's scale of 2 the scores of the weights are all higher."""


def planned(model: str, variant: str, own: dict[str, Any] | None = None, **options: Any) -> Plan:
    """Return a plan with the variant's own options, which `plan_of` cannot set."""
    defaults = {name: default for name, (default, _) in RUN_OPTIONS.items()}
    texts = {**defaults, **SMALL, "model": model, "variant": variant, **{n: str(v) for n, v in options.items()}}
    return resolve(parse_options(texts), own or {})


def attached(plan: Plan) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model, evidence, _ = adapter.attach(base_of(plan), plan, total_steps=5)
    return model, evidence


def base_of(plan: Plan) -> Any:
    return load_model(plan.source, precision="fp32", quantization="none")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trained(model: Any, optimizer: torch.optim.Optimizer, steps: int = 4) -> Any:
    for step in range(steps):
        ids = torch.randint(3, 200, (4, 12), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        out = model(input_ids=ids).logits
        torch.nn.functional.cross_entropy(out[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
    return model


def optimizer_of(plan: Plan, model: Any, evidence: Any, rate: float = 0.01, decay: float = 0.0) -> Any:
    evidence.optimizer = plan.variant.optimizer(model, rate, decay, plan.spec.variant_options)
    return evidence.optimizer


@pytest.mark.parametrize("variant", BOTH)
def test_before_training_the_outputs_are_those_of_the_base_model(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, variant=variant)
    assert logits(attached(plan)[0]).equal(logits(base_of(plan)))


@pytest.mark.parametrize(("own", "ranks"), [({}, [8]), ({"experts": 3, "rank_ratio": 4.0}, [8, 2, 1])])
def test_molf_trains_all_weights_and_its_experts_with_two_moments_each(
    tiny_model: str, own: dict[str, Any], ranks: list[int]
) -> None:
    plan = planned(tiny_model, "molf", own)
    model, evidence = attached(plan)
    assert expert_ranks(8, plan.spec.variant_options) == ranks
    whole = sum(p.numel() for p in base_of(plan).parameters())
    count = whole + sum(ranks) * sum(map(sum, plan.adapted.values()))
    assert sum(p.numel() for p in trainable_tensors(model).values()) == count
    trained(model, optimizer := optimizer_of(plan, model, evidence), 1)
    moments = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    assert sum(t.numel() for t in moments) == 2 * count


@pytest.mark.parametrize("variant", BOTH)
def test_the_scale_is_that_of_lora_in_the_arm_matched_and_the_authors_own_in_the_recommended_one(
    tiny_model: str, variant: str
) -> None:
    lora, own = attached(plan_of(tiny_model, variant="lora"))[0], attached(plan_of(tiny_model, variant=variant))[0]
    scales = [{layer.scaling["default"] for _, layer in adapter_modules(model)} for model in (lora, own)]
    assert scales == [{2.0}, {2.0}]
    values = CATALOGUE[variant].recommended
    assert values.alpha / values.rank == pytest.approx(32 / 128**0.5, rel=1e-3)


def test_with_layers_only_these_have_experts_and_everything_is_trained(tiny_model: str) -> None:
    plan = plan_of(tiny_model, variant="molf", layers="last:1", target_modules="q_proj")
    model, evidence = attached(plan)
    assert [name for name, _ in adapter_modules(model)] == ["model.layers.2.self_attn.q_proj"]
    assert all(p.requires_grad for p in model.parameters())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(model, optimizer_of(plan, model, evidence))
    routed = {"weight": "base_layer.weight", "lora_1": "lora_B.default.weight"}
    kept = {name for name, p in model.named_parameters() if p.equal(before[name])}
    lost = [n for n, won in zip(routed, torch.stack(evidence.optimizer.winners).any(0)[0], strict=True) if not won]
    assert all(any(name.endswith(routed[expert]) for expert in lost) or "lora_A" in name for name in kept)


def test_with_word_pairs_nothing_above_the_pooled_block_is_trained(tiny_model: str) -> None:
    model, _ = attached(plan_of(tiny_model, variant="molf", **PAIRS))
    untrained = {
        n.partition("layers.")[2].partition(".")[0] for n, p in model.named_parameters() if not p.requires_grad
    }
    assert untrained == {"", "2"}  # the last of three blocks, and the norm after it
    assert {name.split(".")[2] for name, _ in adapter_modules(model)} == {"0", "1"}


def test_if_the_weights_always_win_it_is_full_fine_tuning(tiny_model: str) -> None:
    plan, full = plan_of(tiny_model, variant="molf"), plan_of(tiny_model, variant="full")
    model, evidence = attached(plan)
    trained(model, optimizer_of(plan, model, evidence, decay=0.1))
    assert torch.stack(evidence.optimizer.winners)[:, :, 0].all()
    other, _ = attached(full)
    groups = [
        {"params": [p for p in other.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in other.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    trained(other, torch.optim.AdamW(groups, lr=0.01))
    assert not any(p.any() for name, p in model.named_parameters() if "lora_B" in name)
    torch.testing.assert_close(logits(model), logits(other), rtol=1e-4, atol=1e-4)
    with pytest.warns(UserWarning, match="No update was routed to the expert lora_1 of any layer in 4 steps"):
        prove_trained(model, plan.variant, replace(evidence, without_gradient={}))


@pytest.mark.slow
def test_with_one_expert_molf_efficient_is_lora(store: Path, tiny_model: str) -> None:
    one = run_of(planned(tiny_model, "molf-efficient", {"experts": 1}))
    other = run_of(plan_of(tiny_model, variant="lora"))
    columns = [name for name in predictions_of(one.run_id, "tl") if name.startswith("p_")]
    same = [predictions_of(run.run_id, "tl")[columns] for run in (one, other)]
    pd.testing.assert_frame_equal(*same, atol=1e-4)


@pytest.mark.parametrize("variant", BOTH)
def test_what_is_saved_loads_without_whichlora_and_answers_as_the_trained_model(
    tmp_path: Path, tiny_model: str, variant: str
) -> None:
    plan = plan_of(tiny_model, variant=variant, **LORA_WINS_SOMEWHERE)
    model, evidence = attached(plan)
    trained(model, optimizer_of(plan, model, evidence))
    prove_trained(model, plan.variant, replace(evidence, without_gradient={}))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    adapter.save(model, plan, tmp_path / "saved", initial=tmp_path)
    assert all(p.equal(before[name]) for name, p in model.named_parameters())
    reloaded = reload_with_peft(variant, tiny_model, tmp_path / "saved")
    torch.testing.assert_close(logits(reloaded), logits(model), rtol=1e-4, atol=1e-4)
    if variant == "molf":
        assert reloaded.state_dict().keys() == base_of(plan).state_dict().keys()
        name, layer = next(iter(adapter_modules(model)))
        product = 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        torch.testing.assert_close(reloaded.get_submodule(name).weight, layer.base_layer.weight + product)


@pytest.mark.parametrize("variant", BOTH)
def test_a_loser_that_changed_is_noticed(tiny_model: str, variant: str) -> None:
    plan = plan_of(tiny_model, variant=variant, **LORA_WINS_SOMEWHERE)
    model, evidence = attached(plan)
    trained(model, optimizer_of(plan, model, evidence))
    evidence.without_gradient = {}
    prove_trained(model, plan.variant, evidence)
    optimizer = evidence.optimizer
    for experts, row in zip(optimizer.modules.values(), torch.stack(optimizer.winners).any(0), strict=True):
        for name, won in zip(experts, row.tolist(), strict=True):
            part = experts[name][-1]
            if not won:
                kept = part.parameter.detach().clone()
                part.of(part.parameter.data)[0] += 0.1
                with pytest.raises(ProofError, match=f"the expert {name} of .* changed without an update"):
                    prove_trained(model, plan.variant, evidence)
                part.parameter.data.copy_(kept)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"score": "loss"}, "options=score=loss: allowed are epd, pfn"),
        ({"topk": 0}, "options=topk=0: must be a whole number from 1 to 9"),
        ({"experts": 1.5}, "options=experts=1.5: must be a whole number from 1 to 8"),
        ({"full_rate": 0}, "options=full_rate=0: must be a number from 1e-06"),
    ],
)
def test_settings_that_are_not_allowed_are_refused(tiny_model: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        planned(tiny_model, "molf", own)


def routing_of(run_id: str) -> pd.DataFrame:
    return pd.read_parquet(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/training/routing.parquet"))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "topk"), [("molf", 1), ("molf-efficient", 2)])
def test_a_run_logs_who_was_updated_in_each_step(store: Path, tiny_model: str, variant: str, topk: int) -> None:
    plan = planned(tiny_model, variant, {"topk": topk}, epochs=2, **LORA_WINS_SOMEWHERE)
    result = run_of(plan)
    table = routing_of(result.run_id)
    assert list(table.columns) == ["step", "module", "expert"]
    assert set(table["module"]) == set(plan.adapted)
    assert table.groupby(["step", "module"], observed=True).size().eq(topk).all()
    assert len(table) == topk * 10 * len(plan.adapted)
    names = {"molf": ["weight", "lora_1"], "molf-efficient": ["lora_1", "lora_2"]}
    assert set(table["expert"]) == set(names[variant])
    shares = {name: result.metrics[f"train/update_share/{name}"] for name in names[variant]}
    assert sum(shares.values()) == pytest.approx(topk)
    assert shares["lora_1"] == pytest.approx((table["expert"] == "lora_1").mean() * topk)


@pytest.mark.slow
@pytest.mark.parametrize("variant", BOTH)
def test_the_record_of_a_killed_and_resumed_run_is_that_of_an_uninterrupted_one(
    store: Path, tiny_model: str, variant: str
) -> None:
    check_resuming(variant, tiny_model, store, step=7, **LORA_WINS_SOMEWHERE)
    client = mlflow.MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
    tables = []
    for experiment in ("tests", "uninterrupted"):
        folder = client.get_experiment_by_name(experiment).experiment_id
        (run,) = client.search_runs([folder], "tags.`whichlora.kind` = 'run'")
        tables.append(routing_of(run.info.run_id))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["expert"].nunique() == 2
    assert tables[0]["step"].max() == 10
