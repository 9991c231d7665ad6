"""The plan of a folder and its device-hours, and the earlier names of the paper's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packaged_experiments import EXPERIMENTS, PAPER
from shapes import config_of
from transformers import AutoModelForCausalLM

from whichlora.config.options import parse_options
from whichlora.config.outline import Outline, outline
from whichlora.experiment.command import main
from whichlora.experiment.device_hours import MODELS, OVERHEAD, PEAK, UTILISATION, device_hours
from whichlora.experiment.folder_plan import folder_plan, outline_folder
from whichlora.experiment.moved_files import MOVED, moved_to
from whichlora.models.loading import shape_of

LLAMA = "meta-llama/Llama-3.1-8B"


def run(**options: Any) -> Outline:
    texts = {"task": "xnli", "model": LLAMA, "epochs": "3", "tl_ratio": "0.01"}
    return outline(parse_options(texts | {name: str(value) for name, value in options.items()}))


def hours(*runs: Outline) -> float:
    found = device_hours(runs)
    assert found is not None
    return found


def test_the_hours_of_a_run_by_hand() -> None:
    """Llama-3.1-8B, XNLI: 4,950 items of 60 tokens and 50 of 85, three epochs, 4 FLOPs a parameter and token."""
    training = 4 * 3 * (4950 * 60 + 50 * 85)
    validation = 2 * 500 * (60 + 85) * (3 + 1)
    test = 2 * 5010 * (60 + 85)
    seconds = OVERHEAD + 8_030_261_248 * (training + validation + test) / (PEAK * UTILISATION)
    assert hours(run()) == pytest.approx(seconds / 3600)


def test_what_is_done_once_counts_once() -> None:
    swahili, hindi = run(tl_ratio=0), run(tl_ratio=0, language="hi")
    assert swahili.adapter == hindi.adapter
    assert hours(swahili, swahili) == hours(swahili)
    scored = 2 * 5010 * 106 * 8_030_261_248 / (PEAK * UTILISATION) / 3600
    assert hours(swahili, hindi) - hours(swahili) == pytest.approx(scored)
    assert hours(run(), run(seed=1)) == pytest.approx(2 * hours(run()))
    assert run(rank=8).run == run().run  # the arm's own rank
    assert run(arm="recommended", learning_rate="2e-3").adapter != run(learning_rate="2e-3").adapter


@pytest.mark.parametrize("measured", [{"retention": "atlas-nli"}, {"forgetting": "udhr"}, {"alignment": "tatoeba"}])
def test_what_is_measured_beside_the_task_is_another_run_of_the_same_adapter(measured: dict[str, str]) -> None:
    assert run(**measured).adapter == run().adapter
    assert run(**measured).run != run().run
    assert run(latency="false", device_price="2").run == run().run


def test_gradients_cost_what_they_need() -> None:
    """A backward pass ends at the first adapted block, and full fine-tuning needs the gradients of weights too."""

    def training(**options: Any) -> float:
        return hours(run(**options)) - hours(replace(run(**options), epochs=0))

    def validation(**options: Any) -> float:
        return 3 * 2 * 500 * 145 * 8_030_261_248 / (PEAK * UTILISATION) / 3600

    whole = training() - validation()
    assert training(variant="full") - validation() == pytest.approx(whole * 3 / 2)
    assert training(layers="30-31") - validation() == pytest.approx(whole * (1 + 2 / 32) / 2)
    assert training(layers="22-27,30-31") - validation() == pytest.approx(whole * (1 + 10 / 32) / 2)


@pytest.mark.parametrize("options", [{"model": "someone/else"}, {"language": "de"}, {"model": "smollm2-135m"}])
def test_what_is_not_known_is_not_estimated(options: dict[str, Any]) -> None:
    assert device_hours([run(), run(**options)]) is None


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_are_those_of_the_models(name: str) -> None:
    shape_name = {LLAMA: "llama-3.1-8b", f"{LLAMA}-Instruct": "llama-3.1-8b", "meta-llama/Llama-3.2-3B": "llama-3.2-3b"}
    with torch.device("meta"):
        shape = shape_of(AutoModelForCausalLM.from_config(config_of(shape_name.get(name, "qwen3-8b"))))
    assert (MODELS[name].parameters, MODELS[name].blocks) == (shape.parameters, shape.n_layers)


def test_a_dry_run_of_a_folder_prints_each_file_and_the_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert main(["--file", str(PAPER), "--dry_run", "true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split() for line in lines}
    assert {f"{path.name}" for path in PAPER.glob("*.yaml")} < set(rows)
    assert rows["table-02-main.yaml"][-3:-1] == ["216", "180"]
    parts = [rows[path.name] for path in PAPER.glob("table-*.yaml") if "table-01" not in path.name]  # 1 is in 2
    assert int(rows["all,"][-3]) == sum(int(row[-3]) for row in parts)
    assert float(rows["all,"][-1]) == pytest.approx(sum(float(row[-1]) for row in parts), abs=0.05 * len(parts))
    assert "figures-1-4-layers.yaml is a part of table-02-main.yaml: its runs are done once." in lines
    repeated = [line for line in lines if "are done again" in line]
    assert [line.partition(" are also")[0] for line in repeated] == [
        "36 runs of the experiment xnli-llama-3.1-8b-ranks (5.0 hours)",
        "9 runs of the experiment xnli-llama-3.1-8b-layers (1.2 hours)",
    ]
    assert all(" runs of xnli-llama-3.1-8b, and " in line for line in repeated)
    assert not list(tmp_path.iterdir())


def test_files_of_one_experiment_repeat_nothing(tmp_path: Path) -> None:
    for name, base in (("a", "table-05-09-12-ranks"), ("b", "table-02-main")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {PAPER / base}.yaml\nname: xnli-llama-3.1-8b\n")
    plan = folder_plan(tmp_path, width=None)
    assert "are done again" not in plan
    assert f"  {252 + 216 - 36}  " in plan.splitlines()[3]


def test_a_folder_is_planned_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--file", str(PAPER)]) == 2
    assert capsys.readouterr().err == f"error: file={PAPER}: is a folder, which can only be planned; add dry_run=true\n"
    assert main(["--file", "", "--dry_run", "true"]) == 2
    assert "must be the YAML file of an experiment" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["--file", str(tmp_path / "empty"), "--dry_run", "true"]) == 2
    assert "is a folder without YAML files" in capsys.readouterr().err
    (tmp_path / "empty" / "bad.yaml").write_text("name: n\narms: [{variant: lora, rank: 0}]\n")
    assert main(["--file", str(tmp_path / "empty"), "--dry_run", "true"]) == 2
    assert "bad.yaml: line 2: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no such file"),
        (os.mkfifo, "it is a pipe, a device or a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a pipe, a device or a socket"),
        (lambda path: path.symlink_to("nothing"), "there is no such file behind the link"),
    ],
    ids=["nothing", "pipe", "device", "broken link"],
)
def test_what_is_no_file_is_named(
    make: Callable[[Path], None], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "grid.yaml"
    make(file)
    must = "must be the YAML file of an experiment or, with dry_run=true, a folder of such files"
    assert main(["--file", str(file)]) == 2
    assert capsys.readouterr().err == f"error: file={file}: {must}; {says}\n"


def test_a_folder_of_subfolders_lists_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub.yaml" / "grid.yaml").touch()
    assert main(["--file", str(tmp_path), "--dry_run", "true"]) == 2
    says = "is a folder without YAML files; it must have those of experiments; it has sub.yaml/grid.yaml"
    assert capsys.readouterr().err == f"error: file={tmp_path}: {says}\n"


def test_any_case_and_designs_that_became_one_are_found() -> None:
    assert moved_to(Path("Table2.YAML")) == "is now experiments/paper/table-02-main.yaml"
    for name in ("molf.yaml", "experiments/Hybrid-LoRA.yaml"):
        assert moved_to(Path(name)) == "is now experiments/lora-and-full.yaml"
    assert (EXPERIMENTS / "lora-and-full.yaml").is_file()
    assert moved_to(Path("table15.yaml")) is None


@pytest.mark.parametrize("stem", MOVED)
def test_an_earlier_name_ends_with_the_new_one(stem: str, capsys: pytest.CaptureFixture[str]) -> None:
    new = f"experiments/paper/{MOVED[stem].partition(',')[0]}"
    assert (EXPERIMENTS.parent / new).is_file()
    for name in (f"experiments/{stem}.yaml", f"{stem}.yaml", stem, str(EXPERIMENTS / f"{stem}.yaml")):
        assert main(["--file", name, "--dry_run", "true"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: file=")
        assert f"{stem}" in error
        assert f": is now {new}" in error
        assert error.count("\n") == 1


def test_a_file_that_extends_an_earlier_name_is_told_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nextends: experiments/table2.yaml\n")
    assert main(["--file", str(mine), "--dry_run", "true"]) == 2
    said = "extends=experiments/table2.yaml: is now experiments/paper/table-02-main.yaml"
    assert capsys.readouterr().err == f"error: file={mine}: line 2: {said}\n"
    (tmp_path / "table2.yaml").write_text("name: my-own\narms: [{variant: lora, learning_rate: 0}]\n")
    assert main(["--file", str(tmp_path / "table2.yaml"), "--dry_run", "true"]) == 2
    assert "line 2: " in capsys.readouterr().err  # a file of the user's own with such a name is read


def test_the_documented_hours_are_the_plan_s() -> None:
    documented = (EXPERIMENTS.parent / "docs" / "how-to" / "paper.md").read_text()
    for one in outline_folder(PAPER):
        adapters = len({run.adapter for run in one.runs.values()})
        link = f"[`{one.file}`](../../experiments/paper/{one.file})"
        assert f"| {link} | {len(one.runs)} | {adapters} | {hours(*one.runs.values()):.1f} |" in documented
