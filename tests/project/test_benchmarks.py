"""The benchmarks on a tiny model: what both sides come to is the same, and it is noticed where it is not."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from benchmarks import __main__ as command
from benchmarks import machine, packed, precision, scoring, training
from benchmarks.harness import Bench, Equality, Result, Row, agreement, alternate
from benchmarks.ours import Ours
from benchmarks.peers.usual import TrainerPeer
from benchmarks.table import HERE, insert_table, markdown
from benchmarks.workers import ROOT, WorkerError, running_worker
from whichlora.data.batching import collate
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.models import packing
from whichlora.models.answer_logits import answer_loss
from whichlora.models.loading import load_model, load_tokenizer, locate

SMALL = ["--pairs", "1", "--threads", "1", "--items", "8", "--answers", "2", "--probed", "2", "--runs", "2"]
PEER = """
import os
from benchmarks.workers import serve
class Peer:
    def add(self, *, a, b):
        print("not an answer")
        return {"sum": a + b}
    def fail(self):
        raise ValueError("too bad")
    def die(self):
        os._exit(1)
serve(Peer())
"""


@pytest.fixture(autouse=True)
def small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their speed is not what is tested; of large ones in bf16 some processors make one a second."""
    monkeypatch.setattr(machine, "SIDE", 128)


@pytest.fixture(scope="module")
def labelling_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, taught to answer with a label or a short span: as it is it writes anything."""
    source = locate(tiny_model)
    model: Any = load_model(source, precision="fp32", quantization="none")
    tokenizer = load_tokenizer(source)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    encoders = [Encoder(get_task(name), tokenizer) for name in ("atlas-nli", "atlas-qa")]
    taught = [[e.example(item) for item in e.task.load("en", "validation")[:480]] for e in encoders]
    for step in range(60):
        examples = taught[step % 2][8 * step : 8 * step + 16]
        loss, count = answer_loss(model, collate(examples, int(tokenizer.pad_token_id)))  # type: ignore[arg-type]
        (loss / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("models") / "labelling"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def bench_of(model: str, scratch: Path) -> Bench:
    sizes: dict[str, Any] = dict.fromkeys(("pairs", "steps", "threads"), 1)
    sizes |= {"items": 8, "answers": 2, "probed": 2, "runs": 1}
    return Bench(model=model, folder=model, peer_python=None, scratch=scratch, **sizes)


def measured(model: str, output: Path, rows: str) -> tuple[int, dict[str, Any]]:
    """Run the command and return its exit status and what it wrote by row."""
    status = command.main(["--only", rows, "--model", model, "--output", str(output), *SMALL])
    return status, {row["name"]: row for row in json.loads(output.read_text())["rows"]}


def test_both_sides_take_the_same_gradients_and_others_from_other_items(tiny_model: str, tmp_path: Path) -> None:
    setting = training.prepare(bench_of(tiny_model, tmp_path), 17) | {"precision": "fp32"}
    taken = {}
    for name, side in (("ours", Ours()), ("theirs", TrainerPeer())):
        side.load(**setting)
        side.gradients(count=16, to=str(tmp_path / name))
        taken[name] = training.load_file(tmp_path / name)
    same = training.compare_gradients(taken["ours"], taken["theirs"], limit=training.LIMIT)
    assert same.holds
    assert same.value > 0
    assert min(float(g.norm()) for g in taken["ours"].values()) > 0  # both factors are compared, not zeros
    side.gradients(count=17, to=str(tmp_path / "other"))
    assert not training.compare_gradients(
        taken["ours"], training.load_file(tmp_path / "other"), limit=training.LIMIT
    ).holds
    del taken["theirs"][next(iter(taken["theirs"]))]
    assert not training.compare_gradients(taken["ours"], taken["theirs"], limit=training.LIMIT).holds


def test_scores_answers_and_probed_tokens_are_the_same(labelling_model: str, tmp_path: Path) -> None:
    status, rows = measured(labelling_model, tmp_path / "results.json", "scoring,answers,probe")
    assert status == 0
    assert {name: row["equal"]["value"] for name, row in rows.items()} == {"scoring": 1, "answers": 1, "probe": 1}
    assert all(len(row["ours"]["wall"]) == len(row["theirs"]["cpu"]) == 1 for row in rows.values())


@pytest.mark.slow
def test_a_model_that_writes_no_label_is_noticed(tiny_model: str, tmp_path: Path) -> None:
    """Likelihood scoring gives it one all the same."""
    status, rows = measured(tiny_model, tmp_path / "results.json", "scoring")
    assert status == 1
    assert not rows["scoring"]["equal"]["holds"]


@pytest.mark.slow
def test_another_answer_is_noticed(
    labelling_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = scoring.score

    def tampered(*arguments: Any, **named: Any) -> Any:
        scores = right(*arguments, **named)
        scores.predicted[0] = f"{scores.predicted[0]}s"
        return scores

    monkeypatch.setattr(scoring, "score", tampered)
    status, rows = measured(labelling_model, tmp_path / "results.json", "answers")
    assert status == 1
    assert rows["answers"]["equal"]["value"] == 0.5
    shown = capsys.readouterr()
    assert "**NO**: 1 of 2 predictions the same" in shown.out
    assert "answers: not the same work" in shown.err


@pytest.mark.slow
def test_rows_with_processes_of_their_own(tiny_model: str, tmp_path: Path) -> None:
    names = "training-fp32,training-bf16,training-windowed-fp32,memory,grid,start,busy,waiting"
    status, rows = measured(tiny_model, tmp_path / "results.json", names)
    assert status == 0
    assert rows["training-fp32"]["equal"]["value"] < training.LIMIT
    assert rows["training-windowed-fp32"]["equal"]["value"] < training.LIMIT
    assert rows["training-windowed-fp32"]["notes"] == [f"{tiny_model}: no windows, a vocabulary of 900."]
    assert len(rows["grid"]["ours"]["wall"]) == 2
    assert rows["memory"]["ours_summary"]["median"] > 100
    assert rows["start"]["value"] > 1
    assert rows["busy"]["theirs"] == rows["waiting"]["ours"]  # the step at rest
    assert "With OpenMP's own waiting" in rows["busy"]["notes"][0]


def test_without_weights_the_windowed_rows_have_a_random_model_of_the_shape(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "DEFAULT_MODEL", tiny_model)  # its tokenizer
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 6, "head_dim": 8}
    monkeypatch.setattr(
        training, "WINDOWED_SHAPE", {**training.WINDOWED_SHAPE, **small, "vocab_size": 1200, "layer_types": None}
    )
    taken: list[Bench] = []
    monkeypatch.setattr(training, "measure", lambda bench, wanted, rows: taken.append(bench) or [])
    assert training.measure_windowed(bench_of(tiny_model, tmp_path), [], training.WINDOWED_ROWS[0]) == []
    model = load_model(locate(taken[0].model), precision="fp32", quantization="none")
    assert packing.can_pack(model)
    assert (model.config.sliding_window, model.config.vocab_size) == (512, 1200)
    assert load_tokenizer(locate(taken[0].model)).get_vocab() == load_tokenizer(locate(tiny_model)).get_vocab()


@pytest.mark.parametrize("slow", ["fp32", "bf16"])
def test_where_products_in_bf16_are_slow_nothing_is_measured_in_it_unasked(slow: str) -> None:
    speeds = {name: {"wall": 19.0 if name == slow else 120.0, "cpu": 1.0} for name in ("fp32", "bf16")}
    quick = "bf16" if slow == "fp32" else "fp32"
    chosen, skipped = command.choose_rows([], speeds, "python")
    rows = {row.name: row for block, names in chosen for row in block.rows if row.name in names}
    assert {name: rows[name].precision for name in (*training.TRL_ROWS, "grid")} == {
        "training-trl": quick,
        "training-trl-kept": quick,
        "grid": quick,
    }
    for name in ("training-bf16", "scoring-bf16", "answers-bf16", "probe-bf16"):
        assert (name in rows) == (slow == "fp32")
        assert ("19 GFLOP/s in bf16 here, at 120 in fp32" in skipped.get(name, "")) == (slow == "bf16")
    assert not rows.keys() & skipped.keys()
    ((block, names),) = command.choose_rows(["training-bf16"], speeds, None)[0]
    assert names == ["training-bf16"]
    assert {row.precision for row in block.rows} == {"bf16"}


def test_precisions_are_apart_where_student_s_test_says_so() -> None:
    place = {"task": "atlas-nli", "model": "tiny", "language": "sw", "tl_ratio": 0.5, "outcome": "tl"}
    scores = {"lora": ([0.91, 0.95, 0.93], [0.90, 0.97, 0.92]), "vera": ([0.70, 0.72, 0.71], [0.80, 0.82, 0.81])}
    rows = [
        {**place, "method": method, "precision": name, "seed": seed, "f1": f1}
        for method, both in scores.items()
        for name, own in zip(("bf16", "fp32"), both, strict=True)
        for seed, f1 in enumerate(own)
    ]
    alone = {**place, "method": "pissa", "precision": "bf16", "seed": 1, "f1": 0.5}  # has no partner
    found = precision.compare(precision.pair_runs(pd.DataFrame([*rows, alone])))
    assert list(found["method"]) == ["lora", "vera"]
    for row, both in zip(found.to_dict("records"), scores.values(), strict=True):
        apart = 100 * (np.mean(both[0]) - np.mean(both[1]))
        assert row["difference"] == pytest.approx(apart)
        assert row["within"] == (stats.ttest_ind(*both).pvalue >= 0.05)
    assert list(found["within"]) == [True, False]


def test_packed_steps_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--adapters", "1,2", "--items", "1", "--turns", "1", "--blocks", "1", "--width", "64"]
    assert packed.main(small) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[2:]] == ["1, 1", "2, 1"]
    assert all(float(line.rpartition(", ")[2]) > 0 for line in lines[2:])


def test_a_side_answers_says_what_failed_and_its_end_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a_peer.py").write_text(PEER)
    variables = {"PYTHONPATH": str(tmp_path)}
    with running_worker("a_peer", threads=1, log=tmp_path / "log", variables=variables) as worker:
        assert worker.ask("add", a=1, b=2)["sum"] == 3
        with pytest.raises(WorkerError, match="too bad"):
            worker.ask("fail")
        assert worker.ask("add", a=2, b=2)["sum"] == 4
        with pytest.raises(WorkerError):
            worker.ask("die")


def test_sides_take_turns_in_turned_order() -> None:
    order: list[str] = []

    def side(name: str) -> dict[str, float]:
        order.append(name)
        return {"wall": len(order), "cpu": 0.0}

    taken = alternate("x", {"a": lambda: side("a"), "b": lambda: side("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken["a"]["wall"] == [1, 4, 5]


@pytest.mark.parametrize(
    ("row", "value", "reached"),
    [
        ({"goal": 2.5}, 3.0, True),
        ({"goal": 2.5, "total": True}, 24 / 14, False),
        ({"goal": 0.3, "less": True}, 1 / 3, False),
    ],
)
def test_what_a_ratio_is(row: dict[str, Any], value: float, reached: bool) -> None:
    ours, theirs = [2.0, 2.0, 10.0], [6.0, 6.0, 12.0]
    both = {"wall": ours, "cpu": ours}, {"wall": theirs, "cpu": theirs}
    record = Result(row=Row(name="x", work="x", against="y", **row), ours=both[0], theirs=both[1]).record("wall")
    assert record["value"] == pytest.approx(value)
    assert record["reached"] is reached


def test_what_is_equal() -> None:
    assert agreement("abc", "abc", "letters").holds
    assert not agreement("abc", "abd", "letters").holds
    assert agreement("abc", "abd", "letters", limit=0.6).holds
    assert not Equality(what="", value=float("nan"), limit=1e-5).holds
    assert not Equality(what="", value=float("nan"), limit=0.9, share=True).holds


def test_a_row_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["--only", "speed"])
    assert "only=speed: allowed are training-fp32" in capsys.readouterr().err


def test_the_table_of_the_readme_is_that_of_the_results() -> None:
    readme = (HERE / "README.md").read_text()
    table = markdown(json.loads((HERE / "results.json").read_text()))
    assert insert_table(readme, table) == readme
    assert insert_table(readme, table.replace("|", "!", 1)) != readme


def test_the_peers_have_the_libraries_that_the_project_allows() -> None:
    from packaging.requirements import Requirement

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    allowed = {r.name: r.specifier for r in map(Requirement, wanted)}
    lines = (HERE / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    assert pinned.pop("trl")
    assert all(version in allowed[name] for name, version in pinned.items())
    makefile = (ROOT / "Makefile").read_text()
    assert '.venv-bench/bin/python $(INSTALL) "$(TORCH)"' in makefile
