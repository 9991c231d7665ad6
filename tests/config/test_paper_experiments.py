"""The paper's designs: each file of experiments/paper resolves to what the paper did."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaged_experiments import FEW, PAPER, methods, packaged, values

from tuning.space import read_space
from whichlora.config.outline import outline
from whichlora.data.chat import NONE
from whichlora.experiment.device_hours import device_hours, plans_line
from whichlora.experiment.experiment_file import read_experiment
from whichlora.experiment.folder_plan import outline_folder
from whichlora.experiment.grid import each_run
from whichlora.variants import CATALOGUE
from whichlora.variants.methods.adalora import initial_rank

METHODS = {("lora", "recommended"), ("dora", "recommended"), ("dora", "matched"), ("vera", "recommended")}
METHODS |= {("adalora", "recommended"), ("pissa", "recommended")}


def test_every_table_and_figure_of_the_paper_has_a_file() -> None:
    said = [yaml.safe_load(path.read_text())["about"].partition(":")[0] for path in sorted(PAPER.glob("*.yaml"))]
    tables = [int(number) for text in said if text.startswith("Table") for number in re.findall(r"\d+", text)]
    assert sorted(tables) == list(range(1, 15))
    assert "Figures 1 to 4, languages of the layers" in said


def test_the_main_design(read: Any) -> None:
    grid = read("paper/table-02-main.yaml")
    assert len(grid.plans) == 6 * 4 * 3 * 3
    assert len(grid.cells()) == 6 * 3 * (1 + 3 * 3)
    assert values(grid, "task") == {"xnli"}
    assert values(grid, "language") == {"ur", "sw", "hi"}
    assert values(grid, "tl_ratio") == {0, 0.01, 0.1, 0.5}
    assert values(grid, "epochs") == {3}
    assert methods(grid) == METHODS
    assert {p.spec.rank for p in grid.plans if p.spec.variant != "vera"} == {8, 16, 5}  # AdaLoRA's 8 become 5
    (star,) = {
        (p.spec.rank, len(p.spec.target_modules))
        for p in grid.plans
        if (p.spec.variant, p.spec.arm) == ("dora", "matched")
    }
    assert star == (8, 7)


@pytest.mark.parametrize(
    ("name", "task", "languages"),
    [
        ("table-04-07-08-other-models.yaml", "xnli", {"ur", "sw", "hi"}),
        ("table-06-11-tydiqa.yaml", "tydiqa", {"sw", "bn", "te"}),
    ],
)
def test_other_models_and_the_other_task_are_at_one_percent_alone(
    read: Any, name: str, task: str, languages: set[str]
) -> None:
    grid = read(f"paper/{name}")
    models = 2 if "models" in name else 1
    assert len(grid.plans) == len(grid.cells()) == 6 * 3 * 3 * models
    assert (len(values(grid, "model")), values(grid, "task")) == (models, {task})
    assert (values(grid, "language"), values(grid, "tl_ratio")) == (languages, {0.01})
    assert methods(grid) == METHODS


def test_its_sizes_are_those_of_the_paper() -> None:
    """The files leave the sizes to the tasks, whose defaults are the paper's."""
    for name in ("table-02-main.yaml", "table-06-11-tydiqa.yaml"):
        assert not FEW.keys() & packaged(f"paper/{name}")["defaults"].keys()


def test_table_1_comes_out_to_the_digit_and_its_runs_are_table_2_s(read: Any) -> None:
    grid, whole = read("paper/table-01-parameters.yaml"), read("paper/table-02-main.yaml")
    expected = {
        ("lora", "recommended"): 20_971_520,
        ("pissa", "recommended"): 20_971_520,
        ("dora", "recommended"): 29_097_984,
        ("dora", "matched"): 22_347_776,
        ("adalora", "recommended"): 20_973_312,
        ("vera", "recommended"): 1_433_600,
    }
    found = {}
    for plan in grid.plans:
        count = plan.variant.expected_parameters
        assert count
        found[plan.spec.variant, plan.spec.arm] = count(plan.adapted, plan.spec.rank or 0, plan.spec.variant_options)
    assert found == expected
    fingerprints = {plan.spec.fingerprint for plan in whole.plans}
    figures = read("paper/figures-1-4-layers.yaml")
    assert grid.name == figures.name == whole.name
    assert {plan.spec.fingerprint for plan in grid.plans} < fingerprints
    at_one_percent = {plan.spec.fingerprint for plan in whole.plans if plan.spec.tl_ratio == 0.01}
    assert {plan.spec.fingerprint for plan in figures.plans} == at_one_percent


def test_the_rank_study_tunes_alpha_anew_above_rank_8(read: Any) -> None:
    grid, main = read("paper/table-05-09-12-ranks.yaml"), read("paper/table-02-main.yaml", tl_ratio=0.01)
    assert (values(grid, "tl_ratio"), values(grid, "language")) == ({0.01}, {"ur", "sw", "hi"})
    counts = Counter((p.spec.variant, p.spec.arm, p.spec.rank, p.spec.alpha) for p in grid.plans)
    four = (("lora", "recommended"), ("dora", "matched"), ("adalora", "recommended"), ("pissa", "recommended"))
    ranks = {"adalora": (11, 21)}  # 16 and 32 at the start
    raised = {(*m, r, a) for m in four for r in ranks.get(m[0], (16, 32)) for a in (16, 32, 64)}
    as_in_table_2 = {p.spec.fingerprint for p in main.plans if (p.spec.variant, p.spec.arm) in four}
    low = [plan for plan in grid.plans if plan.spec.fingerprint in as_in_table_2]
    assert {(p.spec.variant, p.spec.rank) for p in low} == {("lora", 8), ("dora", 8), ("adalora", 5), ("pissa", 8)}
    assert len(low) == 4 * 3 * 3
    assert counts == dict.fromkeys(raised | {(p.spec.variant, p.spec.arm, p.spec.rank, p.spec.alpha) for p in low}, 9)
    starts = {initial_rank(p.spec.rank, p.spec.variant_options) for p in grid.plans if p.spec.variant == "adalora"}
    assert starts == {8, 16, 32}


def test_table_13_adapts_the_blocks_that_go_with_the_scores(read: Any) -> None:
    grid = read("paper/table-13-layers.yaml")
    upper, last = tuple(range(22, 28)), (30, 31)
    assert values(grid, "layers") == {tuple(range(32)), upper, last, upper + last}
    assert len(grid.plans) == 4 * 3 * 3
    assert (values(grid, "tl_ratio"), methods(grid)) == ({0.01}, {("lora", "recommended")})


def test_table_14_compares_models_and_compositions_in_urdu(read: Any) -> None:
    name = "paper/table-14-instruct-and-compositions.yaml"
    assert packaged(name)["defaults"]["train_size"] == [2000, 20000]
    assert "chat_template" not in packaged(name)["defaults"]  # auto: the instruct model's own, none for the base model
    grid = read(name, train_size=[20, 60])
    (base, instruct) = sorted(values(grid, "model"))
    assert {p.spec.model for p in grid.plans if p.spec.chat_template != NONE} == {instruct}
    assert (Path(base).name, Path(instruct).name) == ("Llama-3.1-8B", "Llama-3.1-8B-Instruct")
    assert values(grid, "language") == {"ur"}
    assert {(plan.spec.train_size, plan.spec.tl_ratio) for plan in grid.plans} == {
        (size, ratio) for size in (20, 60) for ratio in (0, 0.5, 1)
    }
    assert methods(grid) == {("lora", "recommended")}
    assert len(grid.plans) == 2 * 2 * 3 * 3


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_plan_of_a_folder_counts_what_the_runs_resolve_to(read: Any, path: Path) -> None:
    changes = {"train_size": [20, 60]} if "table-14" in path.stem else {}
    grid = read(f"paper/{path.name}", **changes)
    (one,) = (found for found in outline_folder(PAPER) if found.file == path.name)
    assert len(one.runs) == len(grid.plans)
    assert len({run.adapter for run in one.runs.values()}) == len(grid.cells())
    assert device_hours(one.runs.values())
    assert plans_line(grid.plans).startswith("On one A100 80 GB: about ")


def test_the_best_points_of_studies_take_the_place_of_step_1(tmp_path: Path) -> None:
    """With the arms as a study's best.yaml has them."""
    main = packaged("paper/table-02-main.yaml")
    methods = ("lora", "dora", "vera", "adalora", "pissa")
    point = {"learning_rate": 5e-4, "rank": 4, "epochs": 5, "target_modules": "all-linear"}
    tuned = [{"variant": name, "arm": "tuned", **point, "source": f"study {name}"} for name in methods]
    path = tmp_path / "mine.yaml"
    mine = {"extends": str(PAPER / "table-02-main.yaml"), "name": "mine", "arms": [*tuned, main["arms"][-1]]}
    path.write_text(yaml.safe_dump(mine))
    runs = each_run(read_experiment(str(path)), outline)
    assert Counter((run.options.variant, run.options.arm, run.epochs) for run in runs) == {
        **{(name, "tuned", 5): 36 for name in methods},
        ("dora", "matched", 3): 36,
    }
    assert len({run.adapter for run in runs}) == 180


def test_the_search_space_of_the_studies_is_that_of_appendix_d() -> None:
    lora, dora, vera, adalora, pissa = (CATALOGUE[name] for name in ("lora", "dora", "vera", "adalora", "pissa"))
    _, spaces = read_space(str(PAPER / "studies" / "appendix-d.yaml"), [lora, dora, vera, adalora, pissa])
    for variant in (lora, dora, vera, adalora, pissa):
        space = {name: dimension.to_json() for name, dimension in spaces[variant.name].items()}
        assert space["learning_rate"] == [2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3]
        ranks = space["rank"]
        if variant is adalora:  # whose rank is the final one
            ranks = [initial_rank(rank, adalora.options) for rank in ranks]
        assert ranks == ([256, 512, 1024, 2048] if variant is vera else [4, 8, 16, 32])
        assert space.get("alpha") == (None if variant is vera else [4, 8, 16, 32])
        assert variant.recommended
        assert space["epochs"] == sorted({3, variant.recommended.epochs})
        own = variant.recommended.target_modules
        text = own if isinstance(own, str) else ",".join(own)
        assert space["target_modules"] == list(dict.fromkeys([text, "all-linear"]))
