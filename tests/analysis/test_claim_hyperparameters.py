"""Claims about hyperparameters: best values, changes of a lead, and the front of score and cost."""

from __future__ import annotations

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.claims.claims import PACKAGED, Claim, judge, load
from analysis.claims.verdicts import Verdict

FIELD = {claim.name: claim for claim in load(PACKAGED["field"])}
GRID = tuple(float(rate) for rate in np.geomspace(1e-5, 1e-2, 10))


def judged(table: pd.DataFrame, test: str, **arguments: object) -> Verdict:
    return judge(Claim(name="c", says="", outcome="tl", test=test, arguments=arguments), table)


def sweep(
    best: dict[object, float],
    *,
    factor: str = "rank",
    variant: str = "lora",
    grid: tuple[float, ...] = GRID,
    parameter: str = "learning_rate",
    noise: float = 1.0,
    seeds: int = 8,
    at: int = 0,
) -> pd.DataFrame:
    """Return runs over a grid of a parameter, whose F1 falls with the squared log distance from the best value."""
    rng = np.random.default_rng(at)
    rows = [
        {
            "method": f"{level} {value:g}",
            "variant": variant,
            "arm": "matched",
            "task": "xnli",
            "model": "m",
            factor: level,
            parameter: value,
            "language": "sw",
            "tl_ratio": 0.5,
            "seed": seed,
            "outcome": "tl",
            "f1": (80 - 4 * (np.log(value / optimum)) ** 2 + rng.normal(0, noise)) / 100,
        }
        for level, optimum in best.items()
        for value in grid
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("best", "noise", "expected"),
    [
        ({8: 3e-4, 32: 3e-4}, 1.0, "supported"),
        ({8: 3e-4, 32: 7.5e-5}, 1.0, "contradicted"),
        ({8: 3e-4, 32: 3e-4}, 60.0, "undecided"),
    ],
)
def test_a_best_rate_that_does_not_depend_on_the_rank(best, noise, expected):
    found = judge(FIELD["best-rate-rank-invariant"], sweep(best, noise=noise))
    assert found.verdict == expected, found.reason


@pytest.mark.parametrize(("lora", "expected"), [(2e-3, "supported"), (2e-4, "contradicted")])
def test_a_best_rate_that_is_ten_times_another(lora, expected):
    table = sweep({"lora": lora, "full": 2e-4}, factor="variant")
    found = judge(FIELD["lora-rate-ten-times-full"], table)
    assert found.verdict == expected, found.reason
    assert f"{lora / 2e-4:.0f}." in found.reason.split(" times that")[0]  # the estimate lies near the truth


def test_a_best_value_at_the_end_of_those_tried_is_undecided():
    """It may be worse than one that was not tried."""
    found = judge(FIELD["best-rate-rank-invariant"], sweep({8: 3e-4, 32: 1e-1}))
    assert (found.verdict, found.tested) == ("undecided", False)
    assert found.reason == "the best learning_rate of rank 32 is the highest that was tried"
    found = judge(FIELD["best-rate-rank-invariant"], sweep({8: 3e-4, 32: 3e-4}, grid=(1e-4, 1e-3)))
    assert "at least 3 values" in found.reason
    assert "no runs with rank 32" in judge(FIELD["best-rate-rank-invariant"], sweep({8: 3e-4})).reason


def test_the_best_alpha_by_rank():
    grid = tuple(float(alpha) for alpha in np.geomspace(4, 256, 7))
    for upper, expected in ((32, "supported"), (64, "contradicted"), (16, "contradicted")):
        table = sweep({8: 16.0, 32: float(upper)}, parameter="alpha", grid=grid, noise=0.5)
        found = judge(FIELD["best-alpha-root-of-rank"], table)
        assert found.verdict == expected, found.reason


def batches(
    leads: dict[tuple[str, int], float], *, rates: tuple[float, ...] = (1e-4, 1e-3), at: int = 0
) -> pd.DataFrame:
    """Return runs of variants at batch sizes and learning rates, of which the second is the best by validation."""
    rng = np.random.default_rng(at)
    parts = []
    for (variant, batch), lead in leads.items():
        for rate in rates:
            part = designs.table(
                {variant: 0.0}, outcomes=("tl",), ratios=(0.5,), seed_sd=0.3, block_sd=0, at=int(rng.integers(1e9))
            )
            behind = 0.0 if rate == rates[-1] else 5.0
            score = part["f1"] + (lead - behind) / 100
            values = {"variant": variant, "arm": "matched", "batch_size": batch, "learning_rate": rate}
            label = f"{variant}, learning rate {rate:g}, batch size {batch}"
            parts.append(part.assign(f1=score, method=label, **values, **{"validation/tl/f1": score}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("lora_at_64", "expected"), [(-5.0, "supported"), (0.0, "contradicted"), (2.0, "contradicted")]
)
def test_large_batches(lora_at_64, expected):
    table = batches({("full", 4): 0.0, ("lora", 4): 0.0, ("full", 64): 0.0, ("lora", 64): lora_at_64}, at=1)
    found = judge(FIELD["lora-large-batches"], table)
    assert found.verdict == expected, found.reason


def test_a_lead_that_the_batch_size_decides():
    same = {
        ("lora", 4): 0.0,
        ("dora", 4): 1.0,
        ("pissa", 4): 2.0,
        ("lora", 64): 0.0,
        ("dora", 64): 1.0,
        ("pissa", 64): 2.0,
    }
    assert judge(FIELD["batch-size-decides-rankings"], batches(same)).verdict == "contradicted"
    found = judge(FIELD["batch-size-decides-rankings"], batches({**same, ("pissa", 64): -3.0}))
    assert found.verdict == "supported", found.reason
    one = judge(FIELD["batch-size-decides-rankings"], batches({("lora", 4): 0.0, ("dora", 4): 1.0}))
    assert "fewer than two values of batch_size in common" in one.reason


@pytest.mark.parametrize(
    ("scores", "memory", "off", "on"),
    [
        ({"LoRA": 0.0, "OFT": 0.0, "Full": 3.0}, {"LoRA": 3.0, "OFT": 2.0, "Full": 9.0}, "supported", "contradicted"),
        ({"LoRA": 0.0, "OFT": -5.0, "Full": 3.0}, {"LoRA": 3.0, "OFT": 2.0, "Full": 9.0}, "contradicted", "supported"),
        ({"LoRA": 0.0, "OFT": 5.0, "Full": 3.0}, {"LoRA": 1.0, "OFT": 2.0, "Full": 9.0}, "contradicted", "supported"),
    ],
)
def test_the_front_of_score_and_memory(scores, memory, off, on):
    """Memory is the same in every run of a method."""
    table = designs.table(scores, outcomes=("tl",), seed_sd=0.3)
    table = table.assign(variant=table["method"].str.lower(), arm="tuned")
    table["gpu/memory_max_mb"] = table["method"].map(memory) * 1000
    assert judge(FIELD["lora-off-the-front"], table).verdict == off
    found = judged(table, "front", method="LoRA", cost="gpu/memory_max_mb", dominated=False)
    assert found.verdict == on, found.reason
    benefit = table.assign(kept=-table["gpu/memory_max_mb"])
    assert judged(benefit, "front", method="LoRA", cost="kept", less=False).verdict == off


def test_the_front_needs_the_cost():
    table = designs.table({"LoRA": 0.0, "OFT": 0.0}).assign(variant="lora", arm="tuned")
    assert judge(FIELD["lora-off-the-front"], table).reason == "the runs have no gpu/memory_max_mb"


@pytest.mark.slow
@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_a_best_value_at_the_border_is_seldom_called_the_same(noise):
    """Twice the other, which the claim just excludes: more than 11 of 100 draws at 5 % have a probability of .004."""
    tables = [sweep({8: 3e-4, 32: 6e-4}, noise=noise, at=at) for at in range(100)]
    verdicts = [judge(FIELD["best-rate-rank-invariant"], table).verdict for table in tables]
    assert verdicts.count("supported") <= 11
