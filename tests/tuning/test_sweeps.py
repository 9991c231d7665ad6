"""A sweep gives every method the same trainings, never scores test items, and is resumed wherever it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tuning.learning_rates import main
from tuning.sweeps.best_arms import arms
from tuning.sweeps.ranking import ranking, recipes
from tuning.sweeps.stages import DIVERGED, Point, Rules, State, state
from tuning.sweeps.sweep_file import read_sweep
from tuning.sweeps.tables import effect
from whichlora.experiment.experiment_file import read_experiment


def walk(
    rates: list[float], rules: Rules, curve: Mapping[float, float], second: Mapping[float, float] | None = None
) -> tuple[list[list[float]], State]:
    """Train until nothing is missing, and return the rates tried by seed, and the last state."""
    scores: dict[Point, float] = {}
    while (found := state("m", rates, [0, 1], rules, scores.get)).missing:
        for point in found.missing:
            assert point not in scores
            scores[point] = {**curve, **((second or {}) if point.seed else {})}[point.rate]
    plain = [point for point in scores if not point.change]
    assert sorted(scores) == sorted(set(found.points))
    return [sorted(p.rate for p in plain if p.seed == seed) for seed in (0, 1)], found


@pytest.mark.parametrize(
    ("curve", "second", "tried", "repeated", "best", "undecided"),
    [
        ({1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.6}, {}, [1e-3, 2e-3, 4e-3], [2e-3, 4e-3], 2e-3, False),
        # A tie adds no rate, at either end.
        ({1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.7}, {}, [1e-3, 2e-3, 4e-3], [2e-3, 4e-3], 2e-3, True),
        ({1e-3: 0.7, 2e-3: 0.7, 4e-3: 0.5}, {}, [1e-3, 2e-3, 4e-3], [1e-3, 2e-3], 1e-3, True),
        ({1e-3: 0.3, 2e-3: 0.3, 4e-3: 0.3}, {}, [1e-3, 2e-3, 4e-3], [1e-3, 2e-3], 1e-3, True),
        ({1e-3: 0.5, 2e-3: 0.6, 4e-3: 0.7, 8e-3: 0.1}, {}, [1e-3, 2e-3, 4e-3, 8e-3], [2e-3, 4e-3], 4e-3, False),
        ({5e-4: 0.9, 1e-3: 0.8, 2e-3: 0.7, 4e-3: 0.1}, {}, [5e-4, 1e-3, 2e-3, 4e-3], [5e-4, 1e-3], 5e-4, True),
        # The second seed moves the best to the edge.
        (
            {5e-4: 0.1, 1e-3: 0.6, 2e-3: 0.7, 4e-3: 0.1},
            {1e-3: 0.9},
            [5e-4, 1e-3, 2e-3, 4e-3],
            [1e-3, 2e-3],
            1e-3,
            False,
        ),
        ({1e-3: 0.5, 2e-3: 0.7, 4e-3: DIVERGED}, {2e-3: DIVERGED}, None, None, 1e-3, True),
    ],
)
def test_rates_are_added_while_the_best_is_on_an_edge(
    curve: dict[float, float],
    second: dict[float, float],
    tried: list[float] | None,
    repeated: list[float] | None,
    best: float,
    undecided: bool,
) -> None:
    curve = {5e-4: 0.0, 8e-3: 0.0, **curve}
    if tried is None:  # then there is nothing to add either
        tried, repeated, rules = [1e-3, 2e-3, 4e-3], [1e-3, 2e-3], Rules(best=2)
    else:
        rules = Rules(best=2, extend=1)
    found_rates, found = walk([1e-3, 2e-3, 4e-3], rules, curve, second)
    assert found_rates == [tried, repeated]
    assert (found.best, found.undecided) == (best, undecided)


def test_a_rate_with_all_seeds_stays_a_candidate_when_an_added_rate_displaces_it() -> None:
    """The added rate is third by the first seed, but the fourth has the best mean."""
    first = {2e-4: 0.1, 5e-4: 0.70, 1e-3: 0.69, 2e-3: 0.68, 4e-3: 0.685}
    second = {5e-4: 0.60, 1e-3: 0.60, 2e-3: 0.75, 4e-3: 0.60}
    rates, found = walk([2e-4, 5e-4, 1e-3, 2e-3], Rules(best=3, extend=1), first, second)
    assert rates == [[2e-4, 5e-4, 1e-3, 2e-3, 4e-3], [5e-4, 1e-3, 2e-3, 4e-3]]
    assert (found.best, found.undecided) == (2e-3, False)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_method_whose_trainings_diverge_has_no_best_rate_and_no_changes(seed: int) -> None:
    curves = [dict.fromkeys([1e-3, 2e-3, 4e-3], 0.5), dict.fromkeys([1e-3, 2e-3, 4e-3], DIVERGED)]
    rules = Rules(best=2, extend=2, changes=["epochs=4"])
    rates, found = walk([1e-3, 2e-3, 4e-3], rules, curves[seed == 0], curves[1])
    assert rates == [[1e-3, 2e-3, 4e-3], [1e-3, 2e-3]]
    assert (found.best, found.missing, found.undecided) == (None, [], False)


def test_an_added_rate_is_beyond_its_neighbours_however_close_they_are() -> None:
    curve = {1e-3: 0.1, 1.001e-3: 0.2, 1.001e-3 * (1.001e-3 / 1e-3): 0.1}
    assert walk([1e-3, 1.001e-3], Rules(best=1, extend=1), curve)[0][0] == sorted(curve)


def test_no_rate_above_one_is_added() -> None:
    assert walk([0.1, 0.6], Rules(best=1, extend=3), {0.1: 0.1, 0.6: 0.9})[1].undecided


def test_changes_come_last_one_at_a_time_at_the_best_rate_with_all_seeds() -> None:
    rules = Rules(best=1, changes=["batch_size=8", "epochs=4"])
    _, found = walk([1e-3, 2e-3, 4e-3], rules, {1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.6})
    assert [p[1:] for p in found.points[-4:]] == [(2e-3, s, c) for c in rules.changes for s in (0, 1)]
    assert len(found.points) == rules.least(3, 2) == 3 + 1 + 4


def test_an_effect_counts_methods_that_diverge() -> None:
    assert effect([(0.62, 0.60), (0.70, 0.68)]) == ["+2.0", "2 of 2"]
    assert effect([(0.62, 0.60), (0.70, 0.68), (DIVERGED, 0.5)]) == ["-", "2 of 3, 1 diverged"]
    assert effect([]) == []


def test_methods_are_ranked_under_each_recipe_at_their_best_rates(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: rates\ndefaults: {batch_size: [4, 8, 16], seed: [0, 1]}\nsweep: {best: 1}\narms:\n"
        "- {variant: lora, rank: [4, 16], learning_rate: [1e-3, 2e-3]}\n"
        "- {variant: vera, learning_rate: [1e-2, 2e-2]}\n"
    )
    named = recipes(read_sweep(str(tmp_path / "sweep.yaml")).methods)
    assert named["lora rank=16 batch_size=4"] == ("lora rank=16", "batch_size=4")
    scores = {"4": (0.9, 0.8, 0.5), "8": (0.7, 0.8, DIVERGED), "16": (0.6, 0.6, None)}
    rows = ("lora rank=4", "lora rank=16", "vera")
    best = {
        name: (score, None if score == DIVERGED else 1e-3)
        for name, (row, column) in named.items()
        if (score := scores[column.removeprefix("batch_size=")][rows.index(row)]) is not None
    }
    head, *table = ranking(named, best)
    assert head[1:] == [f"batch_size={size}: points (rank) rate" for size in (4, 8, 16)]
    assert table == [
        ["lora rank=4", "90.0 (1) 1e-3", "70.0 (2) 1e-3", "60.0 1e-3"],
        ["lora rank=16", "80.0 (2) 1e-3", "80.0 (1) 1e-3", "60.0 1e-3"],
        ["vera", "50.0 (3) 1e-3", "diverged (3)", ""],
        ["Kendall's tau with the first", "1.00", "0.33", "-"],
    ]
    assert ranking({"lora": ("lora", ""), "vera": ("vera", "")}, {}) == []


def test_best_arms_are_an_experiment_with_the_options_of_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: 'rates: #1'\ndefaults: {train_size: 16, batch_size: 8, seed: [0, 1]}\narms:\n"
        "- {variant: lora, rank: [4, 16], learning_rate: [1.2345e-3, 2e-3]}\n"
        "- {variant: lora-plus, options: {rate_ratio: 4}, learning_rate: [1e-5, 2e-5]}\n"
        "- {variant: vera, learning_rate: [1e-3, 2e-3]}\nsweep: {best: 1}\n"
    )
    sweep = read_sweep(str(tmp_path / "sweep.yaml"))
    states = {n: State(points=[], missing=[], best=m.rates[0], undecided=True) for n, m in sweep.methods.items()}
    *found, last = states
    states[last] = State(points=[], missing=[])
    points = [Point(name, 1e-3, seed) for name in found for seed in (0, 1)]
    fence, *lines, note, end = arms(sweep.name, sweep.methods, states, points).splitlines()
    assert (fence, note, end) == ("```yaml", "  # vera: no rate, because its trainings diverged", "```")
    (tmp_path / "study.yaml").write_text("\n".join(["name: study", *lines]))
    study = read_experiment(str(tmp_path / "study.yaml"))
    rates = {"4": "0.0012345", "16": "0.0012345"}
    assert study.defaults == {"train_size": ["16"], "batch_size": ["8"]}
    assert [{n: v for n, (v,) in arm.items()} for arm in study.arms] == [
        *({"variant": "lora", "arm": "matched", "rank": rank, "learning_rate": rate} for rank, rate in rates.items()),
        {"variant": "lora-plus", "arm": "matched", "learning_rate": "1e-05"},
    ]
    assert study.settings == [{}, {}, {"rate_ratio": 4}]
    assert "source: 'the sweep rates: #1, 2 trainings, undecided: " in lines[-1]


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_and_scores_no_test_items(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "sweep.yaml").write_text(
        f"name: rates\ndefaults: {{model: {tiny_model}, train_size: 16, validation_size: 6, batch_size: 8,"
        " seed: [0, 1]}\n"
        "arms: [{variant: [lora, vera], learning_rate: [1e-3, 2e-3]}]\n"
        "sweep: {best: 1, changes: {warmup: [0]}}\n"
    )
    command = [sys.executable, "-m", "tuning.learning_rates", "--file", "sweep.yaml"]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (before := finished()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert main(["--file", "sweep.yaml", "--dry_run", "true"]) == 0
    assert capsys.readouterr().out.count("| lora | 1e-3 |") == 2  # its score, and what shows a collapse
    assert main(["--file", "sweep.yaml", "--workers", "2"]) == 0
    after = finished()
    assert len(after) == 2 * (2 + 1 + 2)
    assert before.keys() <= after.keys()
    assert all(after[run].info.end_time == before[run].info.end_time for run in before)
    names = {name for run in after.values() for name in run.data.metrics}
    assert {"validation/en/most_frequent_share", "validation/tl/f1", "train/final_loss"} <= names
    assert not any(name.startswith(("test/", "base/", "gain/")) for name in names)
    table = capsys.readouterr().out
    assert main(["--file", "sweep.yaml"]) == 0
    assert capsys.readouterr().out == table
    assert finished().keys() == after.keys()


def finished() -> dict[str, Any]:
    client = MlflowClient()
    found = client.get_experiment_by_name("rates")
    if found is None:
        return {}
    query = "tags.`whichlora.kind` = 'trial' and attributes.status = 'FINISHED'"
    return {run.info.run_id: run for run in client.search_runs([found.experiment_id], query)}
