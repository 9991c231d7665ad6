"""What `auto` becomes: the values of the arm, the task and the model, and what is given beats them."""

from __future__ import annotations

import functools
import gc
from dataclasses import replace

import pytest

from whichlora.config.options import RUN_OPTIONS, parse_options
from whichlora.config.plan import Plan
from whichlora.config.resolve import resolve
from whichlora.data.tasks import get_task
from whichlora.errors import OptionError
from whichlora.variants import CATALOGUE

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WIDTH, NARROWEST = 32, 16  # of the tiny model: its hidden size, and its two key-value heads
GREATEST = {
    "pissa": NARROWEST,
    "olora": NARROWEST,
    "randlora": NARROWEST,
    "psoft": NARROWEST,
    "corda": NARROWEST,
    "lora-ga": NARROWEST // 2,  # it takes twice as many singular vectors
    "c3a": NARROWEST,  # the greatest common divisor of all widths
    "eva": WIDTH // 2,  # up to twice the mean for one layer
    "fourierft": WIDTH * NARROWEST,  # coefficients
    "waveft": WIDTH * NARROWEST,
    "shira": WIDTH * NARROWEST // (WIDTH + NARROWEST),  # as many entries as LoRA
}
OWN_RANK = {
    "vera": WIDTH,
    "oft": WIDTH,
    "randlora": NARROWEST,
    "fourierft": WIDTH * NARROWEST,
    "waveft": WIDTH * NARROWEST,
    "c3a": NARROWEST,
    "psoft": NARROWEST,
    "bd-lora": 12,
    "lily": WIDTH,
    "frod": None,
    "ia3": None,
    "road": None,
}
"""Rank of the arm matched on the tiny model if not 8."""
SHARED = ("epochs", "batch_size", "warmup", "weight_decay", "scheduler", "dropout")


@pytest.fixture(scope="module", autouse=True)
def without_garbage_collection():
    """Keep Python from looking through the items of the packaged tasks again and again."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def plan(tiny_model):
    """Make a plan of a few items from options; the same options give the same object."""

    @functools.cache
    def make(**options: object) -> Plan:
        texts = {name: default for name, (default, _) in RUN_OPTIONS.items()} | {"model": tiny_model}
        texts |= {"train_size": "20", "validation_size": "4", "test_size": "4"}
        return resolve(parse_options(texts | {name: str(value) for name, value in options.items()}))

    return make


adapters = pytest.mark.parametrize("variant", [v.name for v in CATALOGUE.values() if v.has_adapter])
trained = pytest.mark.parametrize("variant", [v.name for v in CATALOGUE.values() if v.trains])


@trained
def test_the_recommended_arm_has_the_values_of_the_variants_own_source(plan, variant):
    own = CATALOGUE[variant].recommended
    spec = plan(variant=variant, arm="recommended").spec
    assert [getattr(spec, name) for name in SHARED] == [getattr(own, name) for name in SHARED]
    assert (spec.learning_rate, spec.alpha) == (own.learning_rate, own.alpha)
    if CATALOGUE[variant].has_adapter:
        assert spec.rank == (min(own.rank, GREATEST.get(variant, WIDTH)) if own.rank else None)
        wanted = LINEARS if own.target_modules == "all-linear" else own.target_modules
        assert set(spec.target_modules) == set(wanted)


def swept(variant: str) -> dict[str, float]:
    """The learning rate to give for the arm matched: none where the sweep has one."""
    declared = CATALOGUE[variant]
    return {"learning_rate": 0.01} if declared.matched_learning_rate is None and declared.trains else {}


@adapters
def test_the_matched_arm_is_rank_8_on_all_linear_layers(plan, variant):
    spec = plan(variant=variant, arm="matched", **swept(variant)).spec
    assert spec.rank == OWN_RANK.get(variant, 8)
    assert spec.target_modules == LINEARS
    assert spec.layers == (0, 1, 2)
    assert spec.learning_rate == (CATALOGUE[variant].matched_learning_rate or 0.01)


def test_a_variant_outside_the_sweep_asks_for_a_learning_rate_in_the_matched_arm(plan):
    with pytest.raises(OptionError, match=r"^learning_rate=auto: no equal sweep yet for miss; .* arm=recommended$"):
        plan(variant="miss")
    assert plan(variant="miss", arm="recommended").spec.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("variant", "given", "message"),
    [
        ("ia3", {"rank": 8}, "rank=8: variant ia3 has no rank"),
        ("road", {"alpha": 8}, "alpha=8.0: variant road has no alpha"),
        ("miss", {"alpha": 8}, "alpha=8.0: variant miss has no alpha"),
        ("oft", {"rank": 12}, "rank=12: oft's block size must divide .*; allowed are 2, 4, 8, 16, 32"),
        ("gralora", {"rank": 7}, "rank=7: .* multiples of 2"),
        ("hra", {"rank": 3}, "rank=3: must be even"),
        ("shira", {"rank": 11}, "rank=11: must be at most 10"),
        ("eva", {"rank": 17}, "rank=17: must be at most 16"),
        ("olora", {"quantization": "nf4"}, "quantization=nf4: .* full precision"),
        ("delora", {"quantization": "nf4"}, "quantization=nf4: .* full precision"),
    ],
)
def test_options_that_a_variant_does_not_support_are_refused_with_a_reason(plan, monkeypatch, variant, given, message):
    monkeypatch.setattr("whichlora.models.loading.load_model", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(OptionError, match=f"^{message}"):
        plan(variant=variant, arm="recommended", **given)


def test_vera_keeps_its_own_rank_in_both_arms():
    assert CATALOGUE["vera"].matched_rank == CATALOGUE["vera"].recommended.rank == 256


def test_the_matched_arm_is_equal_for_every_variant(plan):
    names = [variant for variant in CATALOGUE if variant != "none"]
    specs = [plan(variant=name, **swept(name)).spec for name in names]
    assert len({tuple(getattr(spec, name) for name in SHARED) for spec in specs}) == 1
    with_alpha = {spec.variant: spec.alpha for spec in specs if CATALOGUE[spec.variant].has_alpha}
    assert with_alpha.pop("randlora") == 640  # its random bases ask for twenty times the rank
    assert set(with_alpha.values()) == {16}
    assert {spec.alpha for spec in specs if spec.variant not in {*with_alpha, "randlora"}} == {None}


@pytest.mark.parametrize("name", [name for name, variant in CATALOGUE.items() if variant.has_alpha])
def test_a_rule_for_alpha_is_the_number_that_it_gives_at_the_rank(plan, name):
    """The digests of a run do not know how its alpha was written."""
    for rule, alpha in (("2*rank", 2), ("rank", 1), ("8*sqrt", 4)):
        given, ruled = (plan(variant=name, **swept(name), rank=4, alpha=text).spec for text in (str(4 * alpha), rule))
        assert (ruled.rank, ruled.alpha) == (4, 4 * alpha)
        assert ruled == given
        assert ruled.fingerprint == given.fingerprint


def test_the_options_of_the_recipe_are_those_of_the_spec(plan):
    spec = plan(dropout=0.1, weight_decay=0.01, scheduler="cosine").spec
    assert (spec.dropout, spec.weight_decay, spec.scheduler) == (0.1, 0.01, "cosine")
    assert plan(dropout=0, weight_decay=0, scheduler="linear").spec == plan().spec
    assert plan(variant="ia3", **swept("ia3"), dropout=0).spec == plan(variant="ia3", **swept("ia3")).spec


def test_every_variant_gets_the_same_items(plan):
    plans = [plan(variant=name, **swept(name)) for name in CATALOGUE]
    assert len({p.spec.train_digest for p in plans}) == 1
    assert len({tuple(p.spec.test_digests.items()) for p in plans}) == 1


@pytest.mark.parametrize("variant", ["full", "none"])
def test_without_an_adapter_there_is_nothing_to_adapt(plan, variant):
    spec = plan(variant=variant).spec
    assert (spec.rank, spec.alpha, spec.target_modules, spec.layers) == (None, None, (), ())
    assert (spec.learning_rate is None) == (variant == "none")
    if variant == "none":
        assert {getattr(spec, name) for name in (*SHARED, "learning_rate")} == {None}


def test_defaults_that_the_task_provides(plan):
    nli, qa = plan(train_size="auto", validation_size="auto", test_size="auto").spec, plan(task="atlas-qa").spec
    sizes = get_task("atlas-nli").sizes
    assert (nli.train_size, nli.validation_size, nli.test_size) == (sizes.train, sizes.validation, sizes.test)
    assert (nli.scoring, qa.scoring) == ("likelihood", "generate")
    assert (nli.difficulty, plan(difficulty="hard").spec.difficulty) == ("normal", "hard")
    assert (nli.prompt_version, qa.prompt_version) == ("nli-1", "qa-1")


@pytest.mark.parametrize(("ratio", "select_on"), [("auto", "mean"), (0, "en"), (0.1, "mean"), (0.9, "mean"), (1, "tl")])
def test_the_checkpoint_is_selected_on_the_trained_languages(plan, ratio, select_on):
    """Where no target items are trained on, choosing in their language would not be zero-shot."""
    resolved = plan(tl_ratio=ratio)
    languages = {item.language for item in resolved.mixture.train}
    assert resolved.spec.select_on == select_on
    assert {"en": {"en"}, "mean": {"en", "sw"}, "tl": {"sw"}}[select_on] == languages


def test_an_english_adapter_is_one_for_all_languages(plan):
    one, two = (plan(tl_ratio=0, language=language).spec for language in ("sw", "hi"))
    assert one.train_digest == two.train_digest
    assert one.training_fingerprint == two.training_fingerprint
    assert one.fingerprint != two.fingerprint
    chosen = [plan(tl_ratio=0, language=language, select_on="mean").spec for language in ("sw", "hi")]
    assert chosen[0].train_digest != chosen[1].train_digest
    assert chosen[0].training_fingerprint != chosen[1].training_fingerprint


@pytest.mark.parametrize("ratio", [0.5, 1])
def test_trained_languages_have_separate_adapters(plan, ratio):
    one, two = (plan(tl_ratio=ratio, language=language).spec for language in ("sw", "hi"))
    assert one.train_digest != two.train_digest
    assert one.training_fingerprint != two.training_fingerprint


def test_all_linear_is_the_linear_layers_of_the_blocks_without_the_head(plan):
    resolved = plan(target_modules="all-linear")
    assert resolved.spec.target_modules == LINEARS
    assert len(resolved.adapted) == 3 * len(LINEARS)
    assert not any("lm_head" in name or "embed" in name for name in resolved.adapted)
    assert resolved.adapted["model.layers.1.mlp.down_proj"] == (64, 32)
    assert resolved.adapted["model.layers.0.self_attn.k_proj"] == (32, 16)


def test_named_modules_and_layers_are_those_adapted(plan):
    resolved = plan(target_modules="v_proj, q_proj", layers="0,last:1")
    assert resolved.spec.layers == (0, 2)
    assert set(resolved.adapted) == {f"model.layers.{n}.self_attn.{m}_proj" for n in (0, 2) for m in "qv"}


def test_the_same_layers_and_modules_in_other_words_are_the_same_run(plan):
    one = plan(target_modules="q_proj,v_proj", layers="0-2").spec
    assert plan(target_modules="v_proj,q_proj,q_proj", layers="all").spec == one
    assert plan(target_modules="q_proj,v_proj", layers="first:2,last:1").spec.fingerprint == one.fingerprint


@pytest.mark.parametrize("arm", ["recommended", "matched"])
@pytest.mark.parametrize(
    "given",
    [{"rank": 5, "learning_rate": 0.03}, {"alpha": 7.0, "epochs": 4, "batch_size": 3}, {"warmup": 0.0}],
    ids=lambda g: " ".join(g),
)
def test_what_is_given_beats_the_arm_and_changes_nothing_else(plan, arm, given):
    assert plan(arm=arm, **given).spec == replace(plan(arm=arm).spec, **given)


def test_target_modules_that_are_given_beat_the_arm(plan):
    assert plan(arm="recommended").spec.target_modules == ("q_proj", "v_proj")
    assert plan(arm="recommended", target_modules="all-linear").spec.target_modules == LINEARS


@pytest.mark.parametrize("variant", ["lora", "vera", "none"])
def test_identical_options_give_identical_specs(plan, variant):
    one, two = plan.__wrapped__(variant=variant).spec, plan.__wrapped__(variant=variant).spec
    assert one == two
    assert (one.fingerprint, one.training_fingerprint) == (two.fingerprint, two.training_fingerprint)


@pytest.mark.parametrize(
    "given",
    [
        {"alpha": 16},
        {"rank": 8, "learning_rate": 0.002, "epochs": 1, "batch_size": 4, "tl_ratio": 0.5},
        {"scoring": "likelihood", "select_on": "mean", "target_modules": "all-linear", "difficulty": "normal"},
    ],
    ids=lambda given: " ".join(given),
)
def test_spelling_out_what_auto_gives_is_the_same_run(plan, given):
    assert plan(**given).spec.fingerprint == plan().spec.fingerprint


@pytest.mark.parametrize(("text", "same"), [("0", "-0"), ("1", "1.0")])
def test_a_ratio_in_other_words_is_the_same_run(plan, text, same):
    assert plan(tl_ratio=text).spec.fingerprint == plan(tl_ratio=same).spec.fingerprint


def test_arms_that_come_to_the_same_values_share_an_adapter(plan):
    given = {"rank": 8, "alpha": 16.0, "learning_rate": 0.001, "epochs": 1, "batch_size": 8}
    matched = plan(arm="matched", **given).spec
    assert matched.training_fingerprint == replace(matched, arm="recommended").training_fingerprint


@pytest.mark.parametrize(("name", "value"), [("learning_rate", 0.1), ("epochs", 1), ("batch_size", 1), ("warmup", 0.0)])
def test_what_nothing_would_be_trained_with_is_refused(plan, name, value):
    """A value that is asked for is used or refused, never ignored."""
    with pytest.raises(OptionError, match=rf"^{name}={value}: .*none"):
        plan(variant="none", **{name: value})


def test_a_share_of_less_than_an_item_is_refused(plan):
    """It would be trained on English alone and called one percent."""
    with pytest.raises(OptionError, match=r"tl_ratio=0\.01: is too small for a target item at train_size=20"):
        plan(tl_ratio=0.01)
    with pytest.raises(OptionError, match=r"train_size=1: is too small for a target item at tl_ratio=0\.5"):
        plan(train_size=1)


def test_english_is_not_a_target_language(plan):
    with pytest.raises(OptionError, match="language=en: allowed are ur, sw, hi, bn, te"):
        plan(language="en")


def test_a_model_without_linear_layers_to_adapt_is_refused(plan, tmp_path):
    """GPT-2 uses Conv1D layers."""
    from transformers import GPT2Config

    GPT2Config(n_layer=2, n_embd=32, n_head=4, vocab_size=60000).save_pretrained(tmp_path)
    with pytest.raises(OptionError, match=r"^(model|target_modules)="):
        plan(model=tmp_path)
