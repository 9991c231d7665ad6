"""A sweep gives every method the same trainings, never scores test items, and is resumed wherever it was killed."""

from __future__ import annotations

import os
import re
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
from tuning.sweeps.stages import DIVERGED, Point, Rules, State, state
from tuning.sweeps.sweep_file import PACKAGED, read_sweep
from tuning.sweeps.tables import rate_text
from whichlora.config.options import parse_options

REAL_TEXT = PACKAGED.with_name("real-text.yaml")


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
        ({1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.7}, {}, [1e-3, 2e-3, 4e-3], [2e-3, 4e-3], 2e-3, False),  # a tie
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


def test_no_rate_above_one_is_added() -> None:
    assert walk([0.1, 0.6], Rules(best=1, extend=3), {0.1: 0.1, 0.6: 0.9})[1].undecided


def test_changes_come_last_one_at_a_time_at_the_best_rate_with_all_seeds() -> None:
    rules = Rules(best=1, changes=["batch_size=8", "epochs=4"])
    _, found = walk([1e-3, 2e-3, 4e-3], rules, {1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.6})
    assert [p[1:] for p in found.points[-4:]] == [(2e-3, s, c) for c in rules.changes for s in (0, 1)]
    assert len(found.points) == rules.least(3, 2) == 3 + 1 + 4


def test_the_packaged_sweep_is_that_of_the_published_table() -> None:
    """Options of runs identify the stored trials, and the table has these rates."""
    sweep = read_sweep(str(PACKAGED))
    published = {tuple(row.split(" | ")[:2]) for row in Path("docs/learning-rates.md").read_text().splitlines()}
    published = {(name.removeprefix("| "), rate) for name, rate in (row for row in published if len(row) == 2)}
    assert sweep.name == "learning-rates"
    found = {(m.options.variant, rate_text(rate)) for m in sweep.methods.values() for rate in m.rates}
    assert found <= published
    assert len(found) == 21
    for method in sweep.methods.values():
        texts = {"variant": method.options.variant, "learning_rate": str(method.rates[0]), "seed": "0"}
        assert method.options == parse_options(texts)
        assert (method.settings, method.seeds) == ({}, [0, 1])
    assert sweep.rules == Rules(best=2, changes=[])


def test_all_methods_of_a_sweep_have_equally_many_rates() -> None:
    for file in PACKAGED.parent.glob("*.yaml"):
        methods = read_sweep(str(file)).methods.values()
        assert len({len(method.rates) for method in methods}) == 1
        assert len({tuple(method.seeds) for method in methods}) == 1
        assert len({(m.options.epochs, m.options.batch_size, m.options.warmup) for m in methods}) == 1


BAD = [
    ("arms: [{variant: lora, learning_rate: 1e-3}]\n", r"line 1: must have the key sweep"),
    ("arms: [{variant: lora}]\nsweep: {best: 1}\n", r"line 2: .*learning_rate=auto: must list the rates"),
    ("arms: [{variant: lora, learning_rate: 2}]\nsweep: {best: 1}\n", r"line 2: .*learning_rate=2: .*at most 1"),
    ("arms: [{variant: lora, learning_rate: 1e-3}]\nsweep: {best: 0}\n", r"line 3: sweep: best must be greater"),
    (
        "arms: [{variant: lora, learning_rate: 1e-3}]\nsweep: {best: 1, chnges: {}}\n",
        r"line 3: .*did you mean 'changes'",
    ),
    (
        "arms: [{variant: lora, learning_rate: 1e-3}]\nsweep: {best: 1, changes: {seed: [1]}}\n",
        r"line 3: .*changes=seed: allowed",
    ),
    (
        "arms: [{variant: lora, learning_rate: 1e-3}]\nsweep: {best: 1, changes: {epochs: [0]}}\n",
        r"line 3: .*epochs=0: must be a whole number",
    ),
]


@pytest.mark.parametrize(("text", "problem"), BAD)
def test_bad_files_are_refused_in_one_line(
    tmp_path: Path, text: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.yaml").write_text(f"name: rates\n{text}")
    assert main(["--file", str(tmp_path / "sweep.yaml")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(problem, error), error


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
