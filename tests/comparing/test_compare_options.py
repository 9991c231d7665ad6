"""`compare`: its options, what may be compared, and what identifies a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from invented import ARMS, SIZES, read, rule, write

from comparing.budget import device_seconds
from comparing.compare import main
from comparing.methods import read_variants
from comparing.rule import parse_seeds
from whichlora.config.options import RUN_OPTIONS
from whichlora.errors import OptionError


@pytest.mark.parametrize(
    ("budget", "price", "seconds"),
    [
        ("none", "auto", None),
        ("20", "auto", 72_000),
        ("0.5h", "auto", 1800),
        ("50EUR", "2.5", 72_000),
        ("50 EUR", "2.5EUR", 72_000),
    ],
)
def test_a_budget_is_hours_or_money(budget: str, price: str, seconds: float | None) -> None:
    assert device_seconds(budget, price) == seconds


@pytest.mark.parametrize(
    ("budget", "price", "option"),
    [
        ("0", "auto", "budget"),
        ("20 days", "auto", "budget"),
        ("1e9", "auto", "budget"),
        ("50EUR", "auto", "device_price"),
        ("50EUR", "2USD", "device_price"),
        ("50EUR", "0", "device_price"),
        ("50EUR", "free", "device_price"),
        ("1.2.3EUR", "2", "budget"),
        ("none", "cheap", "device_price"),
    ],
)
def test_other_budgets_are_refused(budget: str, price: str, option: str) -> None:
    with pytest.raises(OptionError) as caught:
        device_seconds(budget, price)
    assert caught.value.option == option


def test_the_seeds_of_the_rounds_follow_those_given() -> None:
    assert rule(seeds=parse_seeds("1"), max_seeds=4).rounds == (1, 2, 3, 4)
    assert rule(seeds=parse_seeds("3,7"), max_seeds=4).rounds == (3, 7, 8, 9)
    assert rule(seeds=parse_seeds("1,2,3,4,5"), max_seeds=3).rounds == (1, 2, 3)
    for text in ("2,1", "1,1", "x", "9000"):
        with pytest.raises(OptionError, match=r"^seed="):
            parse_seeds(text)
    with pytest.raises(OptionError, match="seed=9001: must stay below 9000"):
        rule(seeds=(8998,), max_seeds=4).check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"variant": "lora"}]}, "must be two or more methods; there is LoRA alone"),
        ({"arms": [{"variant": "lora"}, {"variant": "lora", "rank": 8}]}, "there is LoRA alone"),
        ({"arms": [{"variant": "lora"}, {"variant": "vera", "language": "ur"}]}, "the same languages, ratios"),
        ({"arms": [{"variant": "lora"}, {"variant": "vera", "test_size": 9}]}, "VeRA lacks some|LoRA lacks some"),
        ({"arms": [{"variant": "lora"}, {"variant": "vera", "seed": 3}]}, "an arm must not set the seed"),
        ({"arms": [{"variant": "lora"}, {"variant": "none"}]}, "variant=none: trains nothing"),
        ({"precision": ["fp32", "bf16"]}, "must have one precision"),
        ({"task": "align-words"}, "task=align-words"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, tiny_model: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        read(write(tmp_path, tiny_model, **changes))


def test_bad_options_end_with_status_2(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(store, tiny_model)
    for given, error in (
        (("--stop", "budget"), "budget=none: must be given with stop=budget"),
        (("--rank", "4"), "rank=4: must be set in the file"),
        (("--confidence", "0.5"), "confidence=0.5: "),
        (("--max_seeds", "2"), "max_seeds=2: "),
        (("--register", "a/b"), "register=a/b: "),
        (("--primary", "both"), "primary=both: "),
    ):
        assert main(["--file", file, *given]) == 2
        assert capsys.readouterr().err.startswith(f"error: {error}")


def test_what_is_fixed_before_the_first_seed_identifies_a_comparison(tmp_path: Path, tiny_model: str) -> None:
    file = write(tmp_path, tiny_model)
    digest = read(file).digest
    assert read(file).digest == digest
    assert read(write(tmp_path, tiny_model, arms=ARMS[::-1])).digest == digest
    for fields in ({"margin": 2.0}, {"max_seeds": 11}, {"confidence": 0.9}, {"primary": "en"}, {"seeds": (2,)}):
        assert read(file, **fields).digest != digest
    assert read(write(tmp_path, tiny_model, arms=ARMS[:2])).digest != digest
    assert read(write(tmp_path, tiny_model, tl_ratio=0.1)).digest != digest
    assert read(write(tmp_path, tiny_model, seed=[3, 5])).rule.rounds[:4] == (3, 5, 6, 7)


def test_variants_are_methods_in_each_language_and_ratio(tiny_model: str) -> None:
    texts = {name: default for name, (default, _) in RUN_OPTIONS.items() if name != "seed"}
    texts |= {name: str(value) for name, value in SIZES.items()} | {"model": tiny_model}
    texts |= {"variant": "lora, dora", "language": "sw ur", "tl_ratio": "0 0.5"}
    comparison = read_variants(texts, rule())
    assert comparison.methods == ("LoRA", "DoRA*")
    plans = comparison.plans(1, ["LoRA"])["LoRA"]
    assert {(plan.spec.language, plan.spec.tl_ratio) for plan in plans} == {
        (language, ratio) for language in ("sw", "ur") for ratio in (0.0, 0.5)
    }
    with pytest.raises(OptionError, match=r"variant=lora,lorra: has lorra; allowed are .*did you mean 'lora'"):
        read_variants({**texts, "variant": "lora,lorra"}, rule())
