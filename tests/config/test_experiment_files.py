"""The packaged experiments resolve to the documented runs; those of the paper on real model shapes, without weights."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import folders
import pytest
import yaml
from shapes import config_of

from whichlora.experiment.grid import Grid, read_grid

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SHAPES = {
    "meta-llama/Llama-3.1-8B": "llama-3.1-8b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "meta-llama/Llama-3.2-3B": "llama-3.2-3b",
    "Qwen/Qwen3-8B-Base": "qwen3-8b",
}
METHODS = {("lora", "recommended"), ("dora", "recommended"), ("dora", "matched"), ("vera", "recommended")}
METHODS |= {("adalora", "recommended"), ("pissa", "recommended")}
FEW = {"train_size": 100, "validation_size": 4, "test_size": 4}


def packaged(name: str) -> dict[str, Any]:
    """Return a packaged file's content, with that of the files it extends."""
    content = yaml.safe_load((EXPERIMENTS / name).read_text())
    if "extends" in content:
        parent = packaged(content["extends"])
        content = parent | content | {"defaults": parent["defaults"] | content.get("defaults", {})}
    return dict(content)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of both tasks in which every language of the study has items to train on."""
    folder = tmp_path_factory.mktemp("data")
    xnli, tydiqa = folders.xnli_folder(folder / "xnli", dev=300), folders.tydiqa_folder(folder / "tydiqa")
    for language in ("en", "sw", "bn", "te"):
        rows = folders.tydiqa_rows(language, "train", 300)
        folders.write(folder / "tydiqa" / f"{language}.train.json", rows)
    return {"xnli": xnli, "tydiqa": tydiqa, "align-words": xnli}  # word pairs are packaged; XNLI is what is retained


@pytest.fixture(scope="module")
def read(data: dict[str, str], tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Read a packaged experiment with few items and with folders in the place of the hub."""
    folder = tmp_path_factory.mktemp("models")

    def model(name: str) -> str:
        path = folder / name.rpartition("/")[2]
        if not path.exists():
            config_of(SHAPES[name]).save_pretrained(path)
            for file in Path(tiny_model).glob("*token*"):
                (path / file.name).write_bytes(file.read_bytes())
        return str(path)

    def read_with(name: str, **changes: Any) -> Grid:
        defaults = packaged(name)["defaults"]
        path = folder / "read.yaml"
        local = {"data_dir": data[defaults["task"]]}
        if "model" in defaults:
            local["model"] = model(defaults["model"])
        few = {"extends": str(EXPERIMENTS / name), "defaults": FEW | local | changes}
        path.write_text(yaml.safe_dump(few))
        return read_grid(str(path))

    return read_with


def values(grid: Grid, name: str) -> set[Any]:
    return {getattr(plan.spec, name) for plan in grid.plans}


def methods(grid: Grid) -> set[tuple[str, str]]:
    return {(plan.spec.variant, plan.spec.arm) for plan in grid.plans}


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_packaged_experiment_says_what_it_is_for(path: Path) -> None:
    own = yaml.safe_load(path.read_text())
    assert own["about"]
    assert packaged(path.name)["name"]
    if path.stem.startswith("table"):
        assert own["about"].startswith(f"Table {path.stem.removeprefix('table')}")
    else:
        assert own["name"] == path.stem


def test_there_is_a_file_for_every_table_of_results() -> None:
    assert {p.stem for p in EXPERIMENTS.glob("table*")} == {f"table{n}" for n in (*range(1, 10), 12, 13, 14)}


@pytest.mark.parametrize(
    ("name", "task", "languages"),
    [
        ("table2.yaml", "xnli", {"ur", "sw", "hi"}),
        ("table4.yaml", "tydiqa", {"sw", "bn", "te"}),
        ("table5.yaml", "xnli", {"ur", "sw", "hi"}),
        ("table6.yaml", "xnli", {"ur", "sw", "hi"}),
        ("table7.yaml", "xnli", {"ur", "sw", "hi"}),
    ],
)
def test_the_main_design(read: Any, name: str, task: str, languages: set[str]) -> None:
    grid = read(name)
    assert len(grid.plans) == 6 * 4 * 3 * 3
    assert len(grid.cells()) == 6 * 3 * (1 + 3 * 3)
    assert values(grid, "task") == {task}
    assert values(grid, "language") == languages
    assert values(grid, "tl_ratio") == {0, 0.01, 0.1, 0.5}
    assert values(grid, "epochs") == {3}
    assert methods(grid) == METHODS


def test_its_sizes_are_those_of_the_paper(read: Any) -> None:
    """The files leave the sizes to the tasks, whose defaults are the paper's."""
    for name in ("table2.yaml", "table4.yaml"):
        assert not FEW.keys() & packaged(name)["defaults"].keys()


def test_table_1_comes_out_to_the_digit_and_its_runs_are_table_2_s(read: Any) -> None:
    grid, whole = read("table1.yaml"), read("table2.yaml")
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
    assert grid.name == read("table3.yaml").name == whole.name
    assert {plan.spec.fingerprint for plan in grid.plans} < fingerprints
    assert {plan.spec.fingerprint for plan in read("table3.yaml").plans} < fingerprints


def test_the_rank_study_tunes_alpha_anew_at_two_ranks(read: Any) -> None:
    whole, low, high = (
        read(name, tl_ratio=0.5, language="sw", seed=1) for name in ("table12.yaml", "table8.yaml", "table9.yaml")
    )
    assert values(whole, "alpha") == {16, 32, 64}
    counts = Counter((plan.spec.variant, plan.spec.rank) for plan in whole.plans)
    ranks = {("lora", 16), ("lora", 32), ("dora", 16), ("dora", 32), ("pissa", 16), ("pissa", 32)}
    assert counts == dict.fromkeys(ranks | {("adalora", 11), ("adalora", 21)}, 3)
    parts = [{plan.spec.fingerprint for plan in grid.plans} for grid in (low, high)]
    assert parts[0] | parts[1] == {plan.spec.fingerprint for plan in whole.plans}
    assert not parts[0] & parts[1]
    assert low.name == high.name == whole.name


def test_table_13_adapts_the_blocks_that_go_with_the_scores(read: Any) -> None:
    grid = read("table13.yaml")
    upper, last = tuple(range(22, 28)), (30, 31)
    assert values(grid, "layers") == {tuple(range(32)), upper, last, upper + last}
    assert len(grid.plans) == 4 * 4 * 3 * 3


def test_table_14_sets_the_compositions_side_by_side(read: Any) -> None:
    assert packaged("table14.yaml")["defaults"]["train_size"] == [2000, 20000]
    grid = read("table14.yaml", train_size=[20, 60])
    assert {(plan.spec.train_size, plan.spec.tl_ratio) for plan in grid.plans} == {
        (size, ratio) for size in (20, 60) for ratio in (0, 0.5, 1)
    }
    assert methods(grid) == METHODS


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
    monkeypatch.chdir(tmp_path)
    grid = read_grid(str(EXPERIMENTS / "xtreme-r-turkic.yaml"))
    cells = Counter((plan.spec.rank, plan.spec.language) for plan in grid.plans)
    assert cells == dict.fromkeys(itertools.product((4, 16, 64), ("az", "kk", "tk", "uz", "tr")), 3)
    assert {plan.spec.language for plan in grid.plans if "retention/tl" in plan.tests} == {"tr"}
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
