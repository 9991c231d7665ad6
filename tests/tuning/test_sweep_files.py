"""The file of a sweep is checked before anything is trained: its keys, and that all methods have equal trainings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tuning.learning_rates import main
from tuning.sweeps.best_arms import rate_text
from tuning.sweeps.stages import Rules
from tuning.sweeps.sweep_file import PACKAGED, read_sweep
from whichlora.config.options import parse_options
from whichlora.variants import CATALOGUE


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


def test_the_sweep_of_the_catalogue_has_every_method() -> None:
    methods = read_sweep(str(PACKAGED.with_name("catalogue.yaml"))).methods.values()
    assert {method.options.variant for method in methods} == CATALOGUE.keys() - {"none"}


def test_all_methods_of_a_sweep_have_equally_many_rates() -> None:
    for file in PACKAGED.parent.glob("*.yaml"):
        methods = read_sweep(str(file)).methods.values()
        assert len({len(method.rates) for method in methods}) == 1
        assert len({tuple(method.seeds) for method in methods}) == 1
        recipes: dict[str, set[str]] = {}
        for method in methods:
            recipes.setdefault(method.adapter, set()).add(method.recipe)
        assert len(set(map(frozenset, recipes.values()))) == 1


def test_keys_of_a_sweep_take_precedence_over_those_of_the_extended_file(tmp_path: Path) -> None:
    (tmp_path / "parent.yaml").write_text(
        "name: parent\narms: [{variant: lora, learning_rate: [1e-3, 2e-3]}]\n"
        "sweep: {best: 2, extend: 1, changes: {epochs: [4]}, minutes: 3}\n"
    )
    (tmp_path / "child.yaml").write_text("extends: parent.yaml\nname: child\nsweep: {changes: {warmup: [0]}}\n")
    sweep = read_sweep(str(tmp_path / "child.yaml"))
    assert (sweep.rules, sweep.minutes) == (Rules(best=2, extend=1, changes=["warmup=0"]), 3)


def test_methods_may_differ_in_the_adapter_and_have_several_recipes_each(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: rates\ndefaults: {epochs: [1, 2], language: [sw, hi]}\nsweep: {best: 1}\narms:\n"
        "- {variant: lora, rank: [4, 16], learning_rate: [1e-3, 2e-3]}\n"
        "- {variant: vera, learning_rate: [1e-2, 2e-2]}\n"
    )
    assert len(read_sweep(str(tmp_path / "sweep.yaml")).methods) == 3 * 4


LORA = "arms: [{variant: lora, learning_rate: 1e-3}]\n"
LORA_AND = "sweep: {best: 1}\narms:\n- {variant: lora, learning_rate: [1e-3, 2e-3]}\n- "
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
    (f"{LORA}sweep: {{extend: 1}}\n", r"line 3: sweep lacks best"),
    (f"{LORA}sweep: {{best: 1}}\nchanges: {{}}\n", r"line 1: .* may have .*, sweep$"),
    *(
        (f"{LORA}sweep: {{best: 1, changes: {{{name}: [{value}]}}}}\n", rf"line 3: .*changes={name}: allowed")
        for name, value in [("test_size", 5), ("retention", "atlas-qa"), ("alignment_size", 5), ("validation_size", 5)]
    ),
    (f"{LORA}sweep: {{best: 1, changes: {{epochs: [4, 4]}}}}\n", r"line 3: .*changes=epochs=4: is in the list twice"),
    (
        f"{LORA}sweep: {{best: 1, changes: {{warmup: [0, 0.0]}}}}\n",
        r"line 3: .*changes=warmup=0.0: is in the list twice",
    ),
    (f"{LORA_AND}{{variant: vera, learning_rate: 1e-2}}\n", r"line 4: .*equally many rates: lora has 2 and vera has 1"),
    (
        f"{LORA_AND}{{variant: vera, learning_rate: [1e-2, 2e-2], seed: [0, 1]}}\n",
        r"line 4: .*same seeds: lora has \[42\], vera \[0, 1\]",
    ),
    (
        f"{LORA_AND}{{variant: vera, learning_rate: [1e-2, 2e-2], epochs: 4, batch_size: 8}}\n",
        r"line 4: .*same options: .*vera has epochs=4, batch_size=8",
    ),
    (
        f"{LORA_AND}{{variant: vera, learning_rate: [1e-2, 2e-2], epochs: [1, 4]}}\n",
        r"line 4: .*same options: .*vera epochs=\d.* has epochs=",
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


def test_a_folder_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--file", str(tmp_path), "--dry_run", "true"]) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"{tmp_path}: must be the YAML file of an experiment with sweep; it is a folder\n")


@pytest.mark.parametrize(
    ("arms", "changes", "problem"),
    [
        ("{variant: lora, learning_rate: 1e-3}", "{warmup: [0.05]}", "changes=warmup=0.05: changes nothing for lora"),
        (
            "{variant: dora, arm: [matched, recommended], learning_rate: 1e-3}",
            "{}",
            r"(epochs|batch_size|warmup)=.*: must be the same for all methods of a sweep: dora-recommended has",
        ),
    ],
)
def test_resolved_trainings_are_equal_and_changes_change_something(
    store: Path, tiny_model: str, arms: str, changes: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (store / "sweep.yaml").write_text(
        f"name: rates\ndefaults: {{model: {tiny_model}, train_size: 16, validation_size: 6}}\narms: [{arms}]\n"
        f"sweep: {{best: 1, changes: {changes}}}\n"
    )
    assert main(["--file", "sweep.yaml", "--dry_run", "true"]) == 2
    error = capsys.readouterr().err
    assert re.search(problem, error), error
    assert len(error.splitlines()) == 1
