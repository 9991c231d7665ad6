"""Numbers that are NaN or infinite fail a run, with the step and the name, and never count as a result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from runs import PAIRS, plan_of, run_of

from whichlora.data.encoding import Encoder
from whichlora.data.tasks.nli import NliTask
from whichlora.errors import NonFiniteError
from whichlora.evaluation.scores import score
from whichlora.models.loading import load_model
from whichlora.parallel import lockstep
from whichlora.run.command import main
from whichlora.run.pipeline import run
from whichlora.tracking.client import connect
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker
from whichlora.training import adapter, checkpoints, trainer
from whichlora.training.objectives import AnswerTokens
from whichlora.training.verification import prove_step, prove_trained

DIVERGING = {"learning_rate": "1", "alpha": "100000", "epochs": "3"}


def the_run(kind: str = "run") -> Any:
    client = mlflow.MlflowClient()
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    (found,) = client.search_runs(ids, f"tags.`whichlora.kind` = '{kind}'")
    return found


def artifacts(run_id: str) -> list[str]:
    return [file.path for file in mlflow.MlflowClient().list_artifacts(run_id)]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_that_diverges_fails_with_the_step(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    options = {"train_size": "64", "validation_size": "6", "test_size": "30", "precision": precision, **DIVERGING}
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert main(["--model", tiny_model, *arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert " at step " in errors[0]
    failed = the_run()
    assert failed.info.status == "FAILED"
    assert failed.data.tags["whichlora.error"].startswith("NonFiniteError: the ")
    assert "adapter" not in artifacts(failed.info.run_id)
    assert not any(name.startswith(("test/", "validation/", "gain/")) for name in failed.data.metrics)


@pytest.mark.parametrize("variant", ["lora", "vera", "full"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_with_its_step(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, variant: str, value: float
) -> None:
    loss = AnswerTokens.loss
    calls: list[int] = []

    def third_is_not_finite(self: AnswerTokens, model: Any, examples: Any) -> torch.Tensor:
        calls.append(1)
        computed = loss(self, model, examples)
        return computed + value if len(calls) == 3 else computed

    monkeypatch.setattr(AnswerTokens, "loss", third_is_not_finite)
    with pytest.raises(NonFiniteError, match=f"the training loss is {value} at step 3"):
        run_of(plan_of(tiny_model, variant=variant))


def test_a_gradient_that_is_not_finite_is_named_before_the_optimiser_sees_it(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = adapter.attach
    models = []

    def with_bad_gradient(*arguments: Any, **options: Any) -> Any:
        model, evidence, count = attach(*arguments, **options)
        models.append(model)
        parameter = next(p for n, p in model.named_parameters() if "1.mlp.up_proj.lora_B" in n)
        parameter.register_hook(lambda gradient: gradient * float("nan"))
        return model, evidence, count

    monkeypatch.setattr(adapter, "attach", with_bad_gradient)
    with pytest.raises(NonFiniteError, match=r"the gradient norm is nan at step 1, that of .*1\.mlp\.up_proj\.lora_B"):
        run_of(plan_of(tiny_model, variant="lora"))
    assert all(bool(p.isfinite().all()) for p in models[0].parameters())


def test_a_norm_that_overflows_is_not_finite_though_all_gradients_are() -> None:
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.full((2, 2), 1e30)
    with pytest.raises(NonFiniteError, match="the gradient norm is inf at step 7, that of weight alone is inf"):
        prove_step(7, torch.tensor(1.0), torch.nn.utils.get_total_norm([layer.weight.grad]), layer)
    assert prove_step(7, torch.tensor(1.0), torch.tensor(3.0), layer)


def test_states_that_overflow_in_a_norm_leave_no_gradient_which_is_noticed() -> None:
    """In bf16 the model's logits are then all equal, and its loss finite."""
    layer, zero = torch.nn.Linear(2, 2), torch.tensor(0.0)
    assert not prove_step(1, torch.tensor(5.0), zero, layer)  # before the first gradient another check is patient
    assert prove_step(8, zero, zero, layer, learning=True)  # every answer is certain
    for step, learning in ((3, True), (6, False)):
        with pytest.raises(NonFiniteError, match=f"the gradient is zero at step {step}"):
            prove_step(step, torch.tensor(5.0), zero, layer, learning=learning)


@pytest.mark.parametrize("task", ["atlas-nli", "atlas-qa", "align-words"])
def test_scores_from_states_that_overflowed_are_refused(tiny_model: str, task: str) -> None:
    sizes = {k: v for k, v in PAIRS.items() if k != "layers"} if task == "align-words" else {"task": task}
    plan = plan_of(tiny_model, variant="none", **sizes)
    model = load_model(plan.source, precision="fp32", quantization="none")
    model.model.norm.register_forward_hook(lambda module, arguments, output: 0 * output)
    test = next(iter(plan.tests.values()))
    with pytest.raises(NonFiniteError, match=r"logits of .* (equal|not finite)|a state of item .* is zero"):
        score(model, plan.encoder(test.task), test.items, scoring=test.scoring, name="test")


def test_tensors_that_are_not_finite_are_neither_saved_nor_loaded(tiny_model: str, tmp_path: Path) -> None:
    plan = plan_of(tiny_model, variant="lora")
    base = load_model(plan.source, precision="fp32", quantization="none")
    model, evidence, _ = adapter.attach(base, plan, total_steps=5)
    checkpoints.save_state(model, plan.variant, tmp_path / "checkpoint-3")
    name, parameter = next((n, p) for n, p in model.named_parameters() if p.requires_grad)
    parameter.data[0, 0] = float("-inf")
    for attempt in (
        lambda: checkpoints.save_state(model, plan.variant, tmp_path / "checkpoint-4"),
        lambda: prove_trained(model, plan.variant, replace(evidence, last_step=4)),
    ):
        with pytest.raises(NonFiniteError, match=f"{name} is not finite after step 4"):
            attempt()
    with pytest.raises(NonFiniteError, match=f"{name} is not finite in the trained model"):
        adapter.save(model, plan, tmp_path / "adapter", initial=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    from safetensors.torch import load_file, save_file

    path = tmp_path / "checkpoint-3" / "trainable.safetensors"
    tensors = load_file(path)
    tensors[name] *= float("nan")
    save_file(tensors, path)
    with pytest.raises(NonFiniteError, match=f"{name} is not finite in .*checkpoint-3"):
        checkpoints.load_state(model, plan.variant, tmp_path / "checkpoint-3")


def broken(folder: str, target: Path, change: Callable[[Any], None]) -> str:
    """Save a copy of a model with some weights changed."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        change(model)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder).save_pretrained(target)
    return str(target)


def nan_norm(model: Any) -> None:
    model.model.norm.weight[3] = float("nan")


@pytest.mark.parametrize(
    ("task", "what"),
    [
        ("atlas-nli", "label logits"),
        ("atlas-qa", "the atlas-qa logits"),
        ("align-words", "the states of item"),
    ],
)
def test_the_scores_of_a_broken_base_model_are_refused(
    store: Path, tiny_model: str, tmp_path: Path, task: str, what: str
) -> None:
    folder = broken(tiny_model, tmp_path / "broken", nan_norm)
    sizes = PAIRS if task == "align-words" else {"task": task}
    sizes = {name: value for name, value in sizes.items() if name != "layers"}
    with pytest.raises(NonFiniteError, match=f"{what}.* not finite"):
        run_of(plan_of(folder, variant="none", **sizes))
    assert the_run().info.status == "FAILED"


@pytest.mark.parametrize("variant", ["lora", "pissa", "dora", "eva", "full"])
def test_a_broken_base_model_is_not_trained(store: Path, tiny_model: str, tmp_path: Path, variant: str) -> None:
    def nan_weight(model: Any) -> None:
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")

    folder = broken(tiny_model, tmp_path / "broken", nan_weight)
    with pytest.raises(NonFiniteError, match=r"layers\.1\.mlp\.up_proj.* is not finite"):
        run_of(plan_of(folder, variant=variant))


@pytest.mark.parametrize("scoring", ["likelihood", "generate"])
@pytest.mark.parametrize("fixture", ["tiny_model", "byte_model"])
@pytest.mark.parametrize("packs", [True, False])
def test_the_item_whose_logits_are_not_finite_is_named(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, scoring: str, fixture: str, packs: bool
) -> None:
    if not packs:
        monkeypatch.setattr("whichlora.models.packing.can_pack", lambda model: False)
    plan = plan_of(request.getfixturevalue(fixture), variant="none", scoring=scoring)
    model = load_model(plan.source, precision="fp32", quantization="none")
    test, encoder = plan.tests["en"], Encoder(plan.task, plan.tokenizer)
    score(model, encoder, test.items, scoring=test.scoring, name="test")
    tokens = [set(encoder.prompt(item)) for item in test.items]
    # A token that one item alone has; where every byte is a token, one that all have.
    alone = ((k, own - set().union(*tokens[:k], *tokens[k + 1 :])) for k, own in enumerate(tokens))
    named, marked = next(((test.items[k].id, min(own)) for k, own in alone if own), (r"\S+", min(tokens[0])))

    def after(module: Any, arguments: Any, output: Any) -> Any:
        return torch.where((arguments[0] == marked)[..., None], torch.nan, output)

    model.get_input_embeddings().register_forward_hook(after)
    with pytest.raises(NonFiniteError, match=rf"atlas-nli .* of item {named} are not finite \(test, \d of"):
        score(model, encoder, test.items, scoring=test.scoring, name="test")


@pytest.mark.parametrize("name", ["test/en/f1", "validation/tl/f1", "gain/en", "base/tl/f1", "train/loss"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_that_are_not_finite_are_not_logged(store: Path, name: str, value: float) -> None:
    log = Tracker(connect(), "tests").open("run", "name", {"fingerprint": "x"})
    with pytest.raises(NonFiniteError, match=f"the metric {name} is {value}"):
        log.metrics({"other": 1.0, name: value})
    with pytest.raises(NonFiniteError, match=f"the metric {name} at step 2 is {value}"):
        log.series(name, iter([(1, 0.5), (2, value)]))
    assert mlflow.MlflowClient().get_run(log.run_id).data.metrics == {}
    assert isinstance(log, RunLog)


def test_measures_of_random_pairs_are_left_out_where_there_are_none(tiny_model: str) -> None:
    plan = plan_of(tiny_model, variant="none", **{k: v for k, v in PAIRS.items() if k != "layers"})
    model = load_model(plan.source, precision="fp32", quantization="none")
    test = next(iter(plan.tests.values()))
    scores = score(model, plan.encoder(test.task), test.items[:1], scoring=test.scoring, name="test")
    assert "pooled/cosine/translation/raw" in scores.metrics
    assert "pooled/cosine/random/raw" not in scores.metrics
    assert json.loads(json.dumps(scores.metrics, allow_nan=False))


def test_an_adapter_that_is_not_finite_once_reloaded_is_not_logged(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = adapter.load_saved

    def overflowing(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.fill_(1e30)
        return model

    monkeypatch.setattr(adapter, "load_saved", overflowing)
    with pytest.raises(NonFiniteError, match="logits of item"):
        run_of(plan_of(tiny_model, variant="lora"))
    failed = the_run()
    assert failed.info.status == "FAILED"
    assert "adapter" not in artifacts(failed.info.run_id)


def test_a_packed_run_that_diverges_neither_fails_nor_changes_the_others(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The texts of the diverging run come first in the pass: padding of the others' texts points to its first token."""
    plans = [
        plan_of(tiny_model, variant="lora", learning_rate="1", alpha="100000", epochs="3", seed="1"),
        plan_of(tiny_model, variant="lora", seed="2"),
        plan_of(tiny_model, variant="dora", seed="3"),
    ]
    alone = [run(plan, Tracker(connect(), "alone")) for plan in plans[1:]]
    step = trainer.try_together
    batches_seen: list[int] = []

    def poisoned(batches: list[Any]) -> Any:
        batches_seen.append(len(batches))
        if len(batches_seen) == 2 and len(batches) == 3:
            for name, parameter in batches[0].model.named_parameters():
                if "lora_B" in name:
                    parameter.data.fill_(float("nan"))
        return step(batches)

    monkeypatch.setattr(trainer, "try_together", poisoned)
    left, results, errors = list(plans), {}, []

    def work() -> None:
        while left:
            plan = left.pop(0)
            try:
                results[plan.spec.fingerprint] = run(plan, Tracker(connect(), "packed"))
            except NonFiniteError as error:
                errors.append(str(error))

    lockstep.run(3, work)
    assert len(errors) == 1
    assert re.match(r"\S+lora_B\S+ is not finite at step 2, and so the training loss is nan \(", errors[0])
    assert max(batches_seen) == 3
    for plan, own in zip(plans[1:], alone, strict=True):
        packed = results[plan.spec.fingerprint]
        client = connect()
        before, after = ([p.value for p in client.get_metric_history(r.run_id, "train/loss")] for r in (own, packed))
        assert after == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_single_logit_that_is_not_finite_stops_generation(tiny_model: str, value: float) -> None:
    plan = plan_of(tiny_model, variant="none", scoring="generate")
    model = load_model(plan.source, precision="fp32", quantization="none")
    last = model.config.vocab_size - 1

    def after(module: Any, arguments: Any, output: Any) -> Any:
        return output.index_fill(-1, torch.tensor(last), value)

    model.lm_head.register_forward_hook(after)
    test = plan.tests["en"]
    with pytest.raises(NonFiniteError, match="the atlas-nli logits of item"):
        score(model, plan.encoder(), test.items, scoring=test.scoring, name="test")


@pytest.mark.parametrize("variant", ["lora", "full"])
def test_a_run_with_a_metric_that_is_not_finite_logs_no_adapter(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    monkeypatch.setattr(NliTask, "shallow_baselines", lambda self, train, test: {"majority": float("nan")})
    with pytest.raises(NonFiniteError, match="the metric floor/en/majority is nan"):
        run_of(plan_of(tiny_model, variant=variant))
    failed = the_run()
    assert failed.info.status == "FAILED"
    assert "adapter" not in artifacts(failed.info.run_id)
    assert "test/en/f1" not in failed.data.metrics


def test_every_trained_tensor_is_checked_at_the_start(tiny_model: str) -> None:
    plan = plan_of(tiny_model, variant="lora")

    def infinite(model: Any) -> None:
        next(p for n, p in model.named_parameters() if "lora_A" in n).data.fill_(float("inf"))

    base = load_model(plan.source, precision="fp32", quantization="none")
    with pytest.raises(NonFiniteError, match=r"lora_A.* is not finite before training"):
        adapter.attach(base, replace(plan, variant=replace(plan.variant, after_attach=infinite)), total_steps=5)
