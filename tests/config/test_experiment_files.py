"""The packaged experiments resolve to the documented runs; those of the paper on real model shapes, without weights."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaged_experiments import EXPERIMENTS, FEW, methods, packaged, values

from tuning.sweeps.sweep_file import PACKAGED, read_sweep
from whichlora.experiment.grid import Grid, read_grid

SWEEPS = PACKAGED.parent


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_packaged_experiment_says_what_it_is_for(path: Path) -> None:
    if path.parent.name == "studies":
        return
    own = yaml.safe_load(path.read_text())
    name = str(path.relative_to(EXPERIMENTS))
    assert own["about"]
    assert packaged(name)["name"]
    if path.parent.name == "paper":
        kind, *numbers = re.findall(r"^[a-z]+|(?<=-)[0-9]+(?=-|$)", path.stem)
        said = own["about"].partition(":")[0]
        assert said.startswith(kind.title())
        assert set(map(int, numbers)) <= set(map(int, re.findall(r"\d+", said)))
    else:
        assert own["name"] == path.stem


def test_injection_is_compared_early_everywhere_and_in_full(read: Any) -> None:
    grid = read("injection-xnli.yaml", retention_size=6)
    assert {(p.spec.variant, len(p.spec.layers), p.spec.scoring) for p in grid.plans} == {
        ("lora", 2, "layer-1"),
        ("lora", 32, "layer-31"),
        ("full", 0, "layer-1"),
        ("full", 0, "layer-31"),
    }
    assert len(grid.plans) == 4 * 4 * 3
    assert all({"retention/en", "retention/tl"} <= plan.tests.keys() for plan in grid.plans)
    assert values(grid, "epochs") == {5}
    assert values(grid, "batch_size") == {8}


def test_injection_of_turkic_languages_crosses_rank_and_language(read: Any) -> None:
    grid = read("injection-turkic.yaml", retention_size=6)
    cells = Counter((plan.spec.rank, plan.spec.language) for plan in grid.plans)
    turkic = ("tr", "az", "uz", "kk", "ky", "tk")
    assert cells == dict.fromkeys(((rank, code) for rank in (2, 4, 8, 16, 32, 64) for code in turkic), 3)
    assert values(grid, "scoring") == {"layer-1"}
    assert {p.spec.language for p in grid.plans if "retention/tl" in p.tests} == {"tr"}
    assert all("retention/en" in plan.tests for plan in grid.plans)


def test_early_layers_are_compared_on_the_packaged_default(data: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "read.yaml"
    few = {"data_dir": data["xnli"], "retention_size": 6}
    path.write_text(yaml.safe_dump({"extends": str(EXPERIMENTS / "early-layers-xnli.yaml"), "defaults": few}))
    grid = read_grid(str(path))
    arms = Counter((p.spec.variant, len(p.spec.layers), p.spec.learning_rate) for p in grid.plans)
    assert arms == {("lora", 2, 2e-4): 3, ("full", 0, 2e-5): 3}
    assert all({"retention/en", "retention/tl"} <= plan.tests.keys() for plan in grid.plans)
    assert values(grid, "scoring") == {"layer-1"}
    assert (values(grid, "epochs"), values(grid, "batch_size")) == ({5}, {8})


def test_ranks_of_turkic_languages_are_evaluated_on_xtreme_r(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "xcopa").mkdir(parents=True)
    rows = [
        {"premise": f"Kapı {i} açıldı.", "choice1": "Girdim.", "choice2": "Uyudum.", "question": "effect"}
        | {"label": i % 2, "idx": i}
        for i in range(250)
    ]
    for split in ("val", "test"):
        file = tmp_path / "data" / "xcopa" / f"{split}.tr.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "data" / "tatoeba").mkdir()
    for code in ("aze", "kaz", "tuk", "uzb", "tur"):
        for side in (code, "eng"):
            file = tmp_path / "data" / "tatoeba" / f"tatoeba.{code}-eng.{side}"
            file.write_text("".join(f"{side} {i}\n" for i in range(200)))
    monkeypatch.chdir(tmp_path)
    grid = read_grid(str(EXPERIMENTS / "xtreme-r-turkic.yaml"))
    cells = Counter((plan.spec.rank, plan.spec.language) for plan in grid.plans)
    assert cells == dict.fromkeys(itertools.product((4, 16, 64), ("az", "kk", "tk", "uz", "tr")), 3)
    assert {plan.spec.language for plan in grid.plans if "retention/tl" in plan.tests} == {"tr"}
    assert {len(plan.tests["alignment/tatoeba"].items) for plan in grid.plans} == {200}
    assert values(grid, "scoring") == {"layer-1"}


def test_the_small_injection_is_of_the_packaged_default() -> None:
    grid = read_grid(str(EXPERIMENTS / "injection.yaml"))
    assert {(plan.spec.rank, plan.spec.seed) for plan in grid.plans} == {(4, 1), (4, 2), (16, 1), (16, 2)}
    assert values(grid, "layers") == {(0, 1)}
    assert values(grid, "model") == {"smollm2-135m"}


def test_the_note_on_xnli_has_three_methods_and_as_many_seeds(read: Any) -> None:
    grid = read("xnli-note.yaml")
    assert len(grid.plans) == len(grid.cells()) == 3 * 2 * 3
    assert methods(grid) == {(v, "matched") for v in ("lora", "vera", "full")}
    assert (values(grid, "tl_ratio"), values(grid, "language")) == ({0.0, 0.1}, {"sw"})


def test_any_beginning_of_the_study_of_real_text_is_balanced_and_its_english_adapters_are_shared(
    data: dict[str, str], tiny_model: str, tmp_path: Path
) -> None:
    path = tmp_path / "read.yaml"
    assert packaged("real-text.yaml")["defaults"]["seed"] == [1, 2, 3]
    few = FEW | {"data_dir": data["xnli"], "model": tiny_model, "seed": [1, 2]}
    path.write_text(yaml.safe_dump({"extends": str(EXPERIMENTS / "real-text.yaml"), "defaults": few}))
    grid = read_grid(str(path))
    assert len(grid.plans) == 7 * 3 * 3 * 2
    cells = list(grid.cells().values())
    assert len(cells) == 7 * (1 + 2 * 3) * 2
    assert {(cell[0].spec.tl_ratio, len(cell)) for cell in cells} == {(0.0, 3), (0.1, 1), (0.5, 1)}
    assert all({p.spec.language for p in cell} == {"hi", "ur", "sw"} for cell in cells if len(cell) == 3)
    for start in range(0, len(cells), 7):  # all methods of a seed, ratio and language follow each other
        together = [cell[0].spec for cell in cells[start : start + 7]]
        assert len({(spec.variant, spec.arm) for spec in together}) == 7
        assert len({(spec.seed, spec.tl_ratio, spec.language) for spec in together}) == 1
    assert [cell[0].spec.seed for cell in cells] == sorted(cell[0].spec.seed for cell in cells)


def test_the_sweep_of_real_text_has_the_methods_and_the_recipe_of_the_study_and_other_seeds() -> None:
    sweep, study = read_sweep(str(SWEEPS / "real-text.yaml")), packaged("real-text.yaml")
    listed = {(arm["variant"], arm.get("arm", "matched")) for arm in study["arms"]}
    assert {(m.options.variant, m.options.arm) for m in sweep.methods.values()} == listed
    same = ("model", "task", "data_dir", "precision", "train_size", "batch_size", "epochs", "warmup")
    for method in sweep.methods.values():
        assert {name: getattr(method.options, name) for name in same} == {n: study["defaults"][n] for n in same}
        assert not {*method.seeds} & {*study["defaults"]["seed"], 42}


def test_the_pocket_study_has_ninety_adapters() -> None:
    grid = read_grid(str(EXPERIMENTS / "pocket.yaml"))
    assert len(grid.plans) == 6 * 3 * 2 * 3
    assert len(grid.cells()) == 90
    assert values(grid, "batch_size") == {4}  # as many steps for every method
    assert values(grid, "precision") == {"bf16"}
    assert all(len(items) >= 200 for plan in grid.plans for items in (test.items for test in plan.tests.values()))
    assert methods(grid) == {(v, "tuned") for v in ("lora", "vera", "adalora", "pissa")} | {
        ("dora", "matched"),
        ("dora", "recommended"),
    }


def test_the_pocket_study_in_fp32_is_a_part_of_it_in_nothing_but_precision() -> None:
    def specs(grid: Grid) -> list[dict[str, Any]]:
        return [plan.spec.to_dict() | {"precision": None} for plan in grid.plans]

    part, whole = (read_grid(str(EXPERIMENTS / name)) for name in ("pocket-fp32.yaml", "pocket.yaml"))
    assert values(part, "precision") == {"fp32"}
    assert len(part.plans) == len(part.cells()) == 6 * 3
    assert all(spec in specs(whole) for spec in specs(part))
