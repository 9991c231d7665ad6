"""Scoring in batches gives what scoring one item at a time gives, for the base and with an adapter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from naive import ITEMS, naive

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.data.tasks.items import LABELS
from whichlora.evaluation import inference, scoring_methods
from whichlora.evaluation.generation import generate
from whichlora.evaluation.likelihood import label_probabilities
from whichlora.evaluation.scores import score
from whichlora.evaluation.scoring_methods import Generation, Likelihood
from whichlora.models import packing
from whichlora.models.loading import load_model, load_tokenizer, locate
from whichlora.models.packing import families

NLI, QA = get_task("atlas-nli"), get_task("atlas-qa")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """For a model this small, threads cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(folder: str, *, adapter: bool = False):
    """Return a model and an encoder; `adapter` adds a LoRA that changes the answers."""
    source = locate(folder)
    model = load_model(source, precision="fp32", quantization="none")
    if adapter:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(1)
        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.2)
    return model.eval(), Encoder(NLI, load_tokenizer(source))


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return load(tiny_model)


@pytest.fixture(scope="module", params=["tiny_model", "byte_model"])
def folder(request):
    return request.getfixturevalue(request.param)


def test_the_models_take_the_two_ways_of_scoring(tiny_model, byte_model):
    first = {}
    for name in (tiny_model, byte_model):
        encoder = Encoder(NLI, load_tokenizer(locate(name)))
        first[name] = len({encoder.continuation(ITEMS[0], f" {label}")[0] for label in LABELS})
    assert (first[tiny_model], first[byte_model]) == (3, 1)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("adapter", [False, True], ids=["base", "lora"])
def test_label_probabilities_are_those_of_one_text_at_a_time(folder, adapter, packed, monkeypatch):
    model, encoder = load(folder, adapter=adapter)
    if not packed:
        monkeypatch.setattr(families, "FAMILIES", ())
    assert packing.can_pack(model) == packed
    expected = naive(model, encoder, ITEMS)
    with torch.inference_mode():
        probabilities = label_probabilities(model, encoder, ITEMS, name="test")
        assert probabilities.shape == (len(ITEMS), 3)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(np.log(probabilities), np.log(expected), atol=1e-3)  # most are near 0 or 1
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)
        for limit in (1, 3):
            monkeypatch.setattr(inference, "PACKED_ITEMS" if packed else "BATCH_ITEMS", limit)
            np.testing.assert_allclose(label_probabilities(model, encoder, ITEMS, name="test"), expected, atol=1e-5)


def test_a_cpu_batch_holds_at_most_the_cached_tokens(tiny_model, monkeypatch):
    model, encoder = load(tiny_model)
    expected = naive(model, encoder, ITEMS)
    for most, passes in ((1, len(ITEMS)), (8192, 1)):
        monkeypatch.setattr(inference, "CACHED_TOKENS", most)
        seen = []
        hook = model.get_decoder().register_forward_pre_hook(lambda *_, seen=seen: seen.append(None))
        with torch.inference_mode():
            probabilities = label_probabilities(model, encoder, ITEMS, name="test")
        hook.remove()
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        assert len(seen) == passes


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_label_logits_are_fp32_for_a_bf16_model(tiny_model, packed, monkeypatch):
    """bf16 logits are so coarse that the best two of many items are equal."""
    model, encoder = load(tiny_model)
    model.bfloat16()
    if not packed:
        monkeypatch.setattr(families, "FAMILIES", ())
    states = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, args: states.append(args[0][0, -1]))
    tokens = [encoder.continuation(ITEMS[0], f" {label}")[0] for label in LABELS]
    with torch.inference_mode():
        for item in ITEMS[:3]:
            probabilities = label_probabilities(model, encoder, [item], name="test")[0]
            logits = model.lm_head.weight[tokens].double() @ states[-1].double()
            np.testing.assert_allclose(probabilities, logits.softmax(0), rtol=1e-6)
        hook.remove()
        assert model(input_ids=torch.tensor([[1, 2]])).logits.shape[-1] == model.config.vocab_size


def test_labels_in_the_language_of_each_item_are_scored_in_one_batch_of_languages(folder):
    """In some languages the first token tells the labels apart and in others it does not."""
    model, english = load(folder)
    task = get_task("atlas-nli", "item")
    encoder = Encoder(task, english.tokenizer)
    items = [task.load(code, "test")[k] for k, code in enumerate([*task.languages, "en", "sw"])]
    with torch.inference_mode():
        probabilities = label_probabilities(model, encoder, items, name="test")
        np.testing.assert_allclose(probabilities, naive(model, encoder, items), atol=1e-5)
        others = label_probabilities(model, english, items, name="test")
    same = [item.language == "en" for item in items]
    np.testing.assert_allclose(probabilities[same], others[same], atol=1e-5)
    assert np.abs(probabilities - others).max() > 0.1
    scores = score(model, encoder, items, scoring=Likelihood(), name="test")
    assert set(scores.predicted) <= set(LABELS)
    assert scores.gold == [(item.label,) for item in items]


@pytest.mark.parametrize(
    ("language", "written", "label"),
    [
        ("sw", "inafuata.", "entailment"),
        ("hi", " विरोध है", "contradiction"),
        ("ur", "غیر جانبدار", "neutral"),
        ("en", "Neutral", "neutral"),
        ("sw", "neutral", None),
    ],
)
def test_a_written_label_is_read_in_the_language_of_the_item(language, written, label):
    item = NLI.load(language, "test")[0]
    assert scoring_methods._label_in(written, get_task("atlas-nli", "item"), item) == label


def test_an_adapter_changes_the_probabilities(folder):
    base, adapted = load(folder), load(folder, adapter=True)
    with torch.inference_mode():
        before, after = (label_probabilities(*pair, ITEMS, name="test") for pair in (base, adapted))
    assert np.abs(np.log(before) - np.log(after)).max() > 0.1


def test_the_order_and_company_of_items_play_no_part(folder):
    model, encoder = load(folder)
    with torch.inference_mode():
        together = label_probabilities(model, encoder, ITEMS, name="test")
        backwards = label_probabilities(model, encoder, ITEMS[::-1], name="test")[::-1]
        alone = np.concatenate([label_probabilities(model, encoder, [item], name="test") for item in ITEMS])
        twins = label_probabilities(model, encoder, [ITEMS[0]] * 3, name="test")
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(twins, together[[0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("task", [NLI, QA], ids=lambda task: task.name)
def test_generating_in_batches_writes_what_generating_alone_writes(tiny, task):
    model, encoder = tiny[0], Encoder(task, tiny[1].tokenizer)
    tokenizer, items = encoder.tokenizer, [*task.load("en", "test")[:4], *task.load("hi", "test")[:2]]
    written = generate(model, encoder, items, name="test")
    for item, text in zip(items, written, strict=True):
        ids = tokenizer(task.prompt(item), return_tensors="pt").input_ids
        own = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=task.answer_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        decoded = tokenizer.decode(own[0, ids.shape[1] :], skip_special_tokens=True)
        assert text == decoded.split("\n")[0].strip()
    assert len(set(written)) > 1


def test_scores_of_generated_spans_are_the_tasks_metrics(tiny):
    items = QA.load("sw", "test")[:3]
    scores = score(tiny[0], Encoder(QA, tiny[1].tokenizer), items, scoring=Generation(), name="test")
    assert scores.gold == [item.answers for item in items]
    own = {k: value for k, value in scores.metrics.items() if "language_consistency" not in k}
    assert own == QA.metrics(scores.predicted, scores.gold)
    assert scores.probabilities is None
    consistency = ["language_consistency", "gold_language_consistency"]
    assert list(scores.frame().columns) == ["id", "gold", "predicted", *consistency]
    assert "invalid_rate" not in scores.metrics


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("neutral", "neutral"),
        (" Neutral.", "neutral"),
        ("ENTAILMENT because", "entailment"),
        ("contradiction\n", "contradiction"),
        ("", None),
        ("neutr", None),
        ("I say neutral", None),
        ("maybe", None),
    ],
)
def test_a_written_label_is_the_one_the_text_begins_with(written, label):
    assert scoring_methods._label_in(written, NLI, ITEMS[0]) == label


def test_an_invalid_answer_counts_as_wrong(tiny):
    """The random model writes no label at all."""
    scores = score(*tiny, ITEMS, scoring=Generation(), name="test")
    assert scores.predicted == [None] * len(ITEMS)
    assert scores.metrics == {"f1": 0.0, "macro_f1": 0.0, "invalid_rate": 1.0}
    assert scores.frame()["predicted"].isna().all()


def test_the_invalid_rate_is_the_share_of_invalid_answers(tiny, monkeypatch):
    model, encoder = tiny
    items = ITEMS[:8]
    gold = [item.label for item in items]
    texts = [gold[0], gold[1].upper(), "nonsense", "", *gold[4:7], "a neutral"]
    tokenizer = encoder.tokenizer
    prompts = {tuple(tokenizer(NLI.prompt(item)).input_ids): text for item, text in zip(items, texts, strict=True)}

    def scripted(input_ids, attention_mask, **_):
        """Write a given text after each prompt, padded as `generate` pads."""
        answers = [
            tokenizer(" " + prompts[tuple(row[mask.bool()].tolist())]).input_ids
            for row, mask in zip(input_ids, attention_mask, strict=True)
        ]
        longest = max(map(len, answers))
        padded = [answer + [tokenizer.pad_token_id] * (longest - len(answer)) for answer in answers]
        return torch.cat([input_ids, torch.tensor(padded)], dim=1)

    monkeypatch.setattr(model, "generate", scripted)
    scores = score(model, encoder, items, scoring=Generation(), name="test")
    assert scores.predicted == [gold[0], gold[1], None, None, *gold[4:7], None]
    assert scores.metrics["invalid_rate"] == 3 / 8
    assert scores.metrics["f1"] == 5 / 8


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("way", [Likelihood(), Generation()], ids=str)
def test_scoring_leaves_the_model_in_the_mode_it_was_in(tiny_model, training, way):
    model, encoder = load(tiny_model, adapter=True)
    model.train(training)
    score(model, encoder, ITEMS[:2], scoring=way, name="test")
    assert all(module.training is training for module in model.modules())


def test_scoring_turns_dropout_off(tiny_model):
    model, encoder = load(tiny_model)
    model.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: torch.nn.functional.dropout(output, 0.5, training=module.training)
    )
    expected = score(model.eval(), encoder, ITEMS, scoring=Likelihood(), name="test")
    again = score(model.train(), encoder, ITEMS, scoring=Likelihood(), name="test")
    np.testing.assert_allclose(again.probabilities, expected.probabilities, atol=1e-6)


def test_a_model_that_fails_is_left_in_its_mode_too(tiny_model):
    model, encoder = load(tiny_model)
    model.train()
    model.lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score(model, encoder, ITEMS[:2], scoring=Likelihood(), name="test")
    assert model.training


def test_scores_by_likelihood_make_a_table_with_a_column_a_label(tiny):
    scores = score(*tiny, ITEMS, scoring=Likelihood(), name="test")
    frame = scores.frame()
    assert list(frame.columns) == ["id", "gold", "predicted", *(f"p_{label}" for label in LABELS)]
    assert list(frame["id"]) == [f"{item.language}/{item.id}" for item in ITEMS]  # two languages have the same ids
    assert list(frame["gold"]) == [item.label for item in ITEMS]
    best = frame[[f"p_{label}" for label in LABELS]].idxmax(axis=1).str.removeprefix("p_")
    assert list(best) == list(frame["predicted"])
    assert scores.metrics["f1"] == (frame["gold"] == frame["predicted"]).mean()
    assert "invalid_rate" not in scores.metrics


def test_generation_continues_from_the_packed_prefill(tiny_model):
    model, encoder = load(tiny_model)
    encoder = Encoder(QA, encoder.tokenizer)
    items = [*QA.load("en", "test")[:4], *QA.load("sw", "test")[:2]]
    shapes = []
    model.register_forward_pre_hook(
        lambda module, args, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    texts = generate(model, encoder, items, name="test")
    assert len(texts) == len(items)
    assert shapes[0][0] == 1  # the packed row
    assert set(shapes[1:]) == {(6, 1)}


def test_generation_ends_with_the_line(tiny_model):
    model, english = load(tiny_model)
    encoder = Encoder(QA, english.tokenizer)
    (newline,) = encoder.tokenizer("\n", add_special_tokens=False).input_ids
    passes = []

    def force(module, args, output):
        passes.append(1)
        output.logits[..., newline] = 1e4

    model.register_forward_hook(force)
    assert generate(model, encoder, QA.load("en", "test")[:2], name="test") == ["", ""]
    assert len(passes) == 1  # one token; the prefill computes no logits
