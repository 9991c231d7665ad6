"""Targeted lexical injection: the loss, the truncated forward pass, the statistics, and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folders
import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from runs import PAIRS, plan_of, run_of
from scipy import stats
from torch.nn import functional

from whichlora.config.plan import Plan
from whichlora.data.tasks.items import PairItem
from whichlora.data.word_pooling import Pooling
from whichlora.errors import OptionError
from whichlora.evaluation import word_alignment
from whichlora.evaluation.word_states import word_states
from whichlora.models import loading
from whichlora.models.loading import load_model
from whichlora.models.pooling import pooled_states, states_at_sites
from whichlora.run.summary import summary
from whichlora.testing.interruption import kill_after_step
from whichlora.testing.runs import predictions_of
from whichlora.training import adapter
from whichlora.training.objectives import Triplets, objective_of, triplet_losses


def loaded(plan: Plan, *, attach: bool = True) -> Any:
    torch.manual_seed(0)
    base = load_model(plan.source, precision="fp32", quantization="none")
    model = adapter.attach(base, plan, total_steps=5)[0] if attach else base
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)  # else the adapter changes nothing
    return model.eval()


def circle(*degrees: float) -> torch.Tensor:
    """Return unit vectors at these angles."""
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([radians.cos(), radians.sin()], dim=1)


EVERY_OTHER = ~torch.eye(3, dtype=torch.bool)


def test_the_loss_of_three_pairs_by_hand() -> None:
    """Anchors at 0, 90 and 200 degrees, positives at 60, 90 and 30: cosines of the differences."""
    found = triplet_losses(circle(0, 90, 200), circle(60, 90, 30), EVERY_OTHER, margin=0.4)
    expected = [
        0.8660254 - 0.5 + 0.4,  # the third positive is 30 degrees away, the own one 60
        0.8660254 - 1 + 0.4,  # the first is 30 degrees away
        -0.3420201 + 0.9848078 + 0.4,  # the second, 110 degrees; the own, 170
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert triplet_losses(circle(0, 90), circle(0, 90), EVERY_OTHER[:2, :2], margin=0.4).tolist() == [0, 0]


def test_the_loss_is_torch_s_with_the_negatives_chosen_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    anchors, positives = (functional.normalize(torch.randn(8, 16, generator=generator), dim=1) for _ in range(2))
    distance = 1 - anchors @ positives.T
    negatives = [min((j for j in range(8) if j != i), key=lambda j, i=i: float(distance[i, j])) for i in range(8)]
    expected = functional.triplet_margin_with_distance_loss(
        anchors,
        positives,
        positives[negatives],
        distance_function=lambda a, b: 1 - functional.cosine_similarity(a, b),
        margin=0.4,
        reduction="none",
    )
    assert triplet_losses(anchors, positives, ~torch.eye(8, dtype=torch.bool)).tolist() == pytest.approx(
        expected.tolist()
    )


def test_the_same_word_is_no_negative_and_a_pair_alone_has_no_loss() -> None:
    other = EVERY_OTHER.clone()
    other[0, 2] = other[2, 0] = False
    found = triplet_losses(circle(0, 90, 200), circle(60, 90, 30), other, margin=0.4)
    assert float(found[0]) == 0  # the second positive is 90 degrees away, the own one 60
    anchors = circle(0).requires_grad_()
    alone = triplet_losses(anchors, circle(90), torch.zeros(1, 1, dtype=torch.bool))
    alone.sum().backward()
    assert alone.tolist() == [0]
    assert anchors.grad is not None
    assert anchors.grad.tolist() == [[0, 0]]


def test_the_objective_reads_the_words_with_the_model(tiny_model: str) -> None:
    plan = plan_of(tiny_model, **PAIRS)
    objective, encoder, model = objective_of(plan), plan.encoder(), loaded(plan)
    assert isinstance(objective, Triplets)
    assert objective.pooling == Pooling(1)
    examples = [objective.example(encoder, item) for item in plan.mixture.train[:4]]

    def state(ids: list[int]) -> torch.Tensor:
        hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[2]
        return functional.normalize(hidden[0, 1:].mean(0), dim=0)

    anchors = torch.stack([state(pair.translation) for pair in examples])
    positives = torch.stack([state(pair.word) for pair in examples])
    expected = triplet_losses(anchors, positives, ~torch.eye(4, dtype=torch.bool)).sum()
    torch.testing.assert_close(objective.loss(model, examples), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first_token", ["drop", "keep"])
def test_a_forward_pass_that_ends_early_is_the_full_one(tiny_model: str, first_token: str) -> None:
    plan = plan_of(tiny_model, **PAIRS, first_token=first_token)
    model, blocks = loaded(plan), plan.shape.blocks
    sequences = [[1, 5, 9, 12], [1, 7], [1, 30, 31]]
    computed = []
    for number, block in enumerate(model.get_base_model().get_submodule(blocks)):
        block.register_forward_hook(lambda *arguments, number=number: computed.append(number))
    early = pooled_states(model, blocks, sequences, Pooling(1, first_token))
    assert computed == [0, 1]
    full = states_at_sites(model, blocks, sequences, Pooling(1, first_token))
    start = 0 if first_token == "keep" else 1
    for row, ids in enumerate(sequences):
        output = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        torch.testing.assert_close(early[row], output.hidden_states[2][0, start:].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(full[1, row], output.hidden_states[-1][0, start:].mean(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(early, full[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_its_gradients_are_those_of_the_full_one(tiny_model: str, checkpointing: bool) -> None:
    plan = plan_of(tiny_model, **PAIRS)
    objective, encoder, model = objective_of(plan), plan.encoder(), loaded(plan)
    examples = [objective.example(encoder, item) for item in plan.mixture.train[:4]]

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        loss.backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    sequences = [pair.translation for pair in examples] + [pair.word for pair in examples]
    states = functional.normalize(states_at_sites(model, plan.shape.blocks, sequences, Pooling(1))[0], dim=1)
    full = gradients(triplet_losses(states[:4], states[4:], ~torch.eye(4, dtype=torch.bool)).sum())
    if checkpointing:  # what is done when memory runs out
        from whichlora.training.micro_batches import set_checkpointing

        set_checkpointing(model.get_base_model(), on=True)
        model.train()  # dropout is 0 in the arm matched
    early = gradients(objective.loss(model, examples))
    assert early.keys() == full.keys()
    assert len(early) == 2 * len(plan.adapted)
    for name, gradient in full.items():
        torch.testing.assert_close(early[name], gradient, rtol=1e-4, atol=1e-6)


def items_of(count: int) -> list[PairItem]:
    return [
        PairItem(index=i, id=str(i), language="sw", stratum="", word=f"word{i}", translation=f"neno{i}")
        for i in range(count)
    ]


def states_of(cosines: np.ndarray[Any, Any], width: int = 1600) -> np.ndarray[Any, Any]:
    """Return states, (sites, pairs, 2, width), where pairs have these cosines and random pairs have 0."""
    count = len(cosines)
    eye = np.eye(width)
    first, away = eye[:count], eye[count : 2 * count]
    second = cosines[:, None] * first + np.sqrt(1 - cosines**2)[:, None] * away
    return np.stack([np.stack([first, second], axis=1)] * 2)


PUBLISHED = [("trained", 623, 0.3211, 0.4113, 1.33e-240), ("control", 63, 0.3143, 0.4033, 7.17e-27)]
"""Means and p values of arXiv 2506.15415, whose table of pairs is not available."""


@pytest.mark.parametrize(("name", "count", "before", "after", "p"), PUBLISHED)
def test_the_published_statistics_come_out_of_pairs_of_known_cosine(
    name: str, count: int, before: float, after: float, p: float
) -> None:
    """The differences of single pairs are unknown: any with the mean and deviation that the published p implies do."""
    random = np.random.default_rng(0)

    def exactly(mean: float, deviation: float) -> np.ndarray[Any, Any]:
        values = random.normal(size=count)
        return mean + deviation * (values - values.mean()) / values.std(ddof=1)

    t = stats.t.isf(p / 2, count - 1)
    first = exactly(before, 0.1)
    second = first + exactly(after - before, (after - before) * np.sqrt(count) / t)
    frames = []
    for cosines in (first, second):
        found, measures = word_alignment.measure_pairs(states_of(cosines), items_of(count))
        assert measures["output/cosine/translation/raw"] == pytest.approx(cosines)
        assert measures["output/cosine/random/raw"] == pytest.approx(0)
        assert len(found) == count
        frames.append(pd.DataFrame({"id": [item.id for item in items_of(count)], **measures}))
    table = word_alignment.pairs_table({name: items_of(count)}, {name: frames[0]}, {name: frames[1]})
    assert list(table["word"][:2]) == ["word0", "word1"]
    metrics = word_alignment.paired_metrics(table)
    place = f"paired/{name}/output/cosine/translation/raw"
    assert table["before/output/cosine/translation/raw"].mean() == pytest.approx(before)
    assert table["after/output/cosine/translation/raw"].mean() == pytest.approx(after)
    assert metrics[f"{place}/difference"] == pytest.approx(after - before)
    assert metrics[f"{place}/t"] == pytest.approx(t)
    assert metrics[f"{place}/p"] == pytest.approx(p, rel=1e-6)
    assert metrics[f"{place}/low"] < after - before < metrics[f"{place}/high"]
    assert metrics[f"{place}/wilcoxon_p"] < 1e-8


def test_the_paired_statistics_are_scipy_s_and_the_formula_s() -> None:
    random = np.random.default_rng(3)
    before = random.normal(size=30)
    after = before + random.normal(0.2, 0.5, size=30)
    found, rise = word_alignment.paired(before, after), after - before
    t = rise.mean() / (rise.std(ddof=1) / np.sqrt(30))
    assert found["t"] == pytest.approx(t)
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(t), 29))
    half = stats.t.ppf(0.975, 29) * rise.std(ddof=1) / np.sqrt(30)
    assert (found["low"], found["high"]) == pytest.approx((rise.mean() - half, rise.mean() + half))
    assert found["wilcoxon_p"] == stats.wilcoxon(rise).pvalue
    assert word_alignment.paired(before, before)["difference"] == 0


def test_a_rise_common_to_all_words_does_not_count_as_alignment() -> None:
    """Every cosine rises, but no translation is nearer than any other word; the paper's measure cannot show this."""
    random = np.random.default_rng(0)
    states = random.normal(size=(2, 60, 2, 64))
    items = items_of(60)
    ids = [item.id for item in items]
    before, after = (
        {"control": pd.DataFrame({"id": ids, **word_alignment.measure_pairs(found, items)[1]})}
        for found in (states, states + 1)
    )
    metrics = word_alignment.paired_metrics(word_alignment.pairs_table({"control": items}, before, after))
    assert metrics["paired/control/output/cosine/translation/raw/p"] < 1e-20
    assert metrics["paired/control/output/cosine/gap/centred/p"] > 0.05


def test_the_retrieved_translation_is_the_one_counted_in_p1() -> None:
    random = np.random.default_rng(0)
    states = random.normal(size=(2, 40, 2, 8))
    states[:, :, 1] += states[:, :, 0]
    found, measures = word_alignment.measure_pairs(states, items_of(40))
    right = [text == item.translation for text, item in zip(found, items_of(40), strict=True)]
    assert 0 < sum(right) < 40
    assert right == (measures["pooled/p1/to/centred"] == 1).tolist()


def test_a_run_is_tracked_with_both_sets_before_and_after(store: Path, tiny_model: str) -> None:
    plan = plan_of(tiny_model, **PAIRS)
    result = run_of(plan)
    m = result.metrics
    finished = mlflow.MlflowClient().get_run(result.run_id)
    logged = {name for name in finished.data.metrics if not name.startswith("system/")}
    assert logged == m.keys() | {"train/loss"}
    folder = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="pairs.parquet")
    table = pd.read_parquet(folder)
    assert table.groupby("set").size().to_dict() == {"trained": 24, "control": 12}
    assert set(table["word"]) == {item.word for role in ("trained", "control") for item in plan.tests[role].items}
    for name, own in table.groupby("set"):
        for measure in word_alignment.MEASURES:
            assert own[f"before/{measure}"].mean() == pytest.approx(m[f"base/{name}/{measure}"])
            assert own[f"after/{measure}"].mean() == pytest.approx(m[f"test/{name}/{measure}"])
        rise = stats.ttest_rel(own["after/output/cosine/gap/centred"], own["before/output/cosine/gap/centred"])
        assert m[f"paired/{name}/output/cosine/gap/centred/p"] == pytest.approx(rise.pvalue)
    headline = "pooled/cosine/gap/centred"
    assert m["gain/trained"] == pytest.approx(m[f"test/trained/{headline}"] - m[f"base/trained/{headline}"])
    assert m["gain/trained"] > 0.1  # trained pairs are learnt
    assert m["floor/control/p1"] == 1 / 12
    assert "train/seconds" in m
    told = summary(plan, result)
    assert "trained pairs, pooled: cosine" in told
    assert "of random pairs" in told
    contexts = {tag.value for given in finished.inputs.dataset_inputs for tag in given.tags}
    assert contexts == {"train", "validation/control", "test/trained", "test/control"}


def test_the_saved_adapter_gives_the_same_cosines_in_plain_peft(store: Path, tiny_model: str) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plan = plan_of(tiny_model, **PAIRS)
    result = run_of(plan)
    folder = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder).eval()

    def state(text: str, layer: int) -> torch.Tensor:
        ids = [plan.tokenizer.bos_token_id, *plan.tokenizer(text, add_special_tokens=False).input_ids]
        with torch.inference_mode():
            hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[layer]
        return hidden[0, 1:].mean(0)

    for place, layer in (("pooled", 2), ("output", -1)):
        cosines = [
            float(functional.cosine_similarity(state(item.word, layer), state(item.translation, layer), dim=0))
            for item in plan.tests["control"].items
            if isinstance(item, PairItem)
        ]
        after = predictions_of(result.run_id, "control")[f"{place}/cosine/translation/raw"]
        assert after.tolist() == pytest.approx(cosines, abs=1e-4)


def test_the_same_spec_gives_the_same_states_and_another_seed_others(store: Path, tiny_model: str) -> None:
    first, second = (run_of(plan_of(tiny_model, **PAIRS), experiment=name) for name in ("first", "second"))
    other = run_of(plan_of(tiny_model, **PAIRS, seed=43), experiment="first")
    pd.testing.assert_frame_equal(predictions_of(first.run_id, "trained"), predictions_of(second.run_id, "trained"))
    assert list(predictions_of(other.run_id, "control")["id"]) == list(predictions_of(first.run_id, "control")["id"])
    assert not predictions_of(other.run_id, "control").equals(predictions_of(first.run_id, "control"))
    assert list(predictions_of(other.run_id, "trained")["id"]) != list(predictions_of(first.run_id, "trained")["id"])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_result_of_an_uninterrupted_one(
    store: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**PAIRS, "train_size": 40, "epochs": 2, "retention": "atlas-nli", "retention_size": 9}
    monkeypatch.setenv("WHICHLORA_WORK", str(store / "killed"))
    kill_after_step(tiny_model, 7, options)
    plan = plan_of(tiny_model, **options)
    resumed = run_of(plan)
    monkeypatch.setenv("WHICHLORA_WORK", str(store / "whole"))
    whole = run_of(plan, experiment="uninterrupted")
    assert mlflow.MlflowClient().get_run(resumed.run_id).data.tags["whichlora.resumed"] == "true"
    for role in ("trained", "control", "retention/en", "retention/tl"):
        pd.testing.assert_frame_equal(predictions_of(resumed.run_id, role), predictions_of(whole.run_id, role))
    own = {name: value for name, value in whole.metrics.items() if name.startswith(("test/", "paired/"))}
    assert {name: resumed.metrics[name] for name in own} == pytest.approx(own)


def test_full_fine_tuning_trains_what_the_pooled_state_depends_on_and_nothing_else(
    store: Path, tiny_model: str
) -> None:
    from transformers import AutoModelForCausalLM

    result = run_of(plan_of(tiny_model, **{**PAIRS, "layers": "all"}, variant="full", pool_layer=0))
    folder = mlflow.artifacts.download_artifacts(run_id=result.run_id, artifact_path="adapter")
    before, after = (AutoModelForCausalLM.from_pretrained(place) for place in (tiny_model, folder))
    changed = {name for name, p in before.named_parameters() if not torch.equal(p, after.get_parameter(name))}
    reached = {n for n, _ in before.named_parameters() if n.startswith(("model.embed_tokens", "model.layers.0."))}
    assert changed == reached
    assert result.metrics["adapter/trainable_parameters"] == sum(before.get_parameter(n).numel() for n in reached)


@torch.inference_mode()
def test_the_first_token_makes_all_words_similar(store: Path, tiny_model: str) -> None:
    plans = [plan_of(tiny_model, **PAIRS, first_token=first_token) for first_token in ("drop", "keep")]
    model = loaded(plans[0], attach=False)
    random = []
    for plan in plans:
        encoder, items = plan.encoder(), plan.tests["control"].items
        states = word_states(model, encoder, items, plan.scoring.pooling, name="test")
        random.append(word_alignment.measure_pairs(states, items)[1]["pooled/cosine/random/raw"].mean())
    assert random[1] > random[0] + 0.05
    assert plans[0].spec.training_fingerprint != plans[1].spec.training_fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dora", "vera", "adalora", "pissa", "eva"])
def test_other_variants_are_injected_too(store: Path, tiny_model: str, variant: str) -> None:
    more = {"layers": "all"} if variant == "eva" else {}
    result = run_of(plan_of(tiny_model, **{**PAIRS, **more}, variant=variant, epochs=3))
    assert result.metrics["gain/trained"] > 0


@pytest.mark.slow
def test_an_nf4_base_is_injected_too(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, **PAIRS, quantization="nf4"))
    assert result.metrics["gain/trained"] > 0


def test_what_is_forgotten_is_scored_on_a_task_that_was_not_trained(store: Path, tiny_model: str) -> None:
    few = {"retention": "atlas-nli", "retention_size": 9}
    plan = plan_of(tiny_model, **PAIRS, **few)
    result = run_of(plan)
    m = result.metrics
    for role in ("retention/en", "retention/tl"):
        assert m[f"gain/{role}"] == pytest.approx(m[f"test/{role}/f1"] - m[f"base/{role}/f1"])
        assert len(predictions_of(result.run_id, role)) == 9
    assert "atlas-nli, not trained, Swahili: F1" in summary(plan, result)
    trained = plan_of(tiny_model)  # a run of the other task is scored on the same items, and its base is the same run
    assert plan.spec.test_digests["retention/tl"] == trained.spec.test_digests["tl"]
    bases = "tags.`whichlora.kind` = 'base'"
    count = len(mlflow.search_runs(search_all_experiments=True, filter_string=bases))
    other = run_of(trained)
    assert other.metrics["base/tl/f1"] == m["base/retention/tl/f1"]
    assert len(mlflow.search_runs(search_all_experiments=True, filter_string=bases)) == count == 4
    without = run_of(plan_of(tiny_model, **PAIRS))  # the adapter is the same, and so are the scores
    assert without.run_id != result.run_id
    assert "whichlora.adapter_of" in mlflow.MlflowClient().get_run(without.run_id).data.tags
    assert without.metrics["paired/control/pooled/cosine/gap/centred/t"] == pytest.approx(
        m["paired/control/pooled/cosine/gap/centred/t"]
    )


def test_any_task_may_be_watched_for_what_it_forgets(store: Path, tiny_model: str) -> None:
    result = run_of(plan_of(tiny_model, retention="atlas-qa", retention_size=4))
    assert {"test/retention/en/exact_match", "gain/retention/tl", "test/tl/f1"} <= result.metrics.keys()
    assert not any(name.startswith("floor/retention") for name in result.metrics)


def test_a_language_that_the_other_task_lacks_is_retained_in_english_alone(tmp_path: Path, tiny_model: str) -> None:
    data = folders.xnli_folder(tmp_path / "xnli")
    retained = {"retention": "xnli", "retention_size": 6, "data_dir": data}
    roles = {code: plan_of(tiny_model, **PAIRS, **retained, language=code).tests.keys() for code in ("tr", "kk")}
    assert roles["tr"] - roles["kk"] == {"retention/tl"}
    assert "retention/en" in roles["kk"]


def test_what_the_spec_of_a_run_says(tiny_model: str) -> None:
    plan = plan_of(tiny_model, **PAIRS)
    spec = plan.spec
    assert (spec.scoring, spec.tl_ratio, spec.select_on, spec.train_size) == ("layer-1", 1.0, "control", 24)
    assert spec.test_digests.keys() == {"trained", "control"}
    everywhere = plan_of(tiny_model, **{**PAIRS, "layers": "all"})
    assert everywhere.spec.scoring == "layer-2"  # the last adapted block
    watched = plan_of(tiny_model, **PAIRS, retention="atlas-nli", retention_size=9)
    assert watched.spec.fingerprint != spec.fingerprint
    assert watched.spec.training_fingerprint == spec.training_fingerprint
    assert str(Pooling(12, "keep")) == "layer-12-first-token"


def test_the_recommended_values_are_the_original_s(tiny_model: str) -> None:
    spec = plan_of(tiny_model, **PAIRS, arm="recommended", batch_size="auto", learning_rate="auto").spec
    assert (spec.rank, spec.alpha, spec.dropout, spec.learning_rate) == (16, 32, 0.05, 2e-4)
    assert (spec.epochs, spec.batch_size, spec.target_modules) == (5, 8, ("q_proj", "v_proj"))
    assert spec.warmup is not None
    assert round(spec.warmup * 5 * -(-623 // 8)) == 50
    assert plan_of(tiny_model, arm="recommended").spec.rank == 4  # of a task without a source of its own


REFUSED = [
    ({"pool_layer": 0}, "layers=first:2: adapts block 1, which gets no gradient at pool_layer=0; allowed .* first:1"),
    ({"pool_layer": 3}, "pool_layer=3: the model has layers 0-2"),
    ({"tl_ratio": 0.5}, "tl_ratio=0.5: does not apply to task=align-words"),
    ({"scoring": "generate"}, "scoring=generate: does not apply to task=align-words"),
    ({"select_on": "en"}, "select_on=en: does not apply to task=align-words"),
    ({"composition": "addition"}, "composition=addition: does not apply to task=align-words"),
    ({"chat_template": "none"}, "chat_template=none: does not apply to task=align-words"),
    ({"batch_size": 1}, "batch_size=1: must be at least 2"),
    ({"train_size": 1}, "train_size=1: needs pairs with different words"),
    ({"validation_size": 1}, "validation_size=1: needs pairs with different words"),
    ({"test_size": 1, "variant": "none", "layers": "all"}, "test_size=1: needs pairs with different words"),
    ({"train_size": 5000}, "train_size=5000: align-words has 302 train items in sw"),
    ({"language": "tt"}, "language=tt: allowed are az, bn"),
    ({"prompt_language": "item"}, "prompt_language=item: align-words has no prompt in sw"),
    ({"task": "atlas-nli", "pool_layer": 1}, "pool_layer=1: does not apply to task=atlas-nli"),
    ({"task": "atlas-nli", "first_token": "keep"}, "first_token=keep: does not apply to task=atlas-nli"),
    ({"task": "atlas-nli", "retention": "atlas-nli"}, "retention=atlas-nli: is the trained task; allowed are none, "),
    ({"data_dir": "/data"}, "data_dir=/data: has no en-sw.tsv; remove the option"),
    ({"retention": "align-words"}, "retention=align-words: allowed are none, atlas-nli"),
    ({"retention_size": 5}, "retention_size=5: needs a task in retention"),
    ({"retention": "atlas-nli", "retention_size": 9999}, "retention_size=9999: atlas-nli has 2100 test items in en"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_conflicting_options_are_refused_before_a_model_is_loaded(
    tiny_model: str, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_model", None)
    with pytest.raises(OptionError, match=f"^{message}"):
        plan_of(tiny_model, **{**PAIRS, **change})


def test_several_processes_would_see_other_negatives(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^task=align-words: needs all negatives of a batch in one process"):
        plan_of(tiny_model, **PAIRS)


def test_word_pairs_are_neither_tuned_nor_read_as_prompts(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from tuning.tune import main as tune
    from whichlora.probing import main as probe

    assert tune(["--task", "align-words", "--model", tiny_model]) == 2
    assert capsys.readouterr().err.startswith("error: task=align-words: allowed are atlas-nli")
    run_id = run_of(plan_of(tiny_model, **PAIRS)).run_id
    assert probe(["--run_id", run_id]) == 2
    assert "error: task=align-words: allowed are atlas-nli" in capsys.readouterr().err
    assert probe(["--run_id", run_id, "--kind", "alignment", "--items", "20"]) == 0
    assert probe(["--run_id", run_id, "--kind", "weights"]) == 0
