"""YAML files that users write: what is read, and what is refused with the line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.claims.claims import load
from tuning.space import read_space
from whichlora.errors import OptionError
from whichlora.experiment.command import main
from whichlora.experiment.grid import read_grid
from whichlora.variants import CATALOGUE
from whichlora.yaml_files import read_document

ROOT = Path(__file__).parents[2]
SMALL = "name: n\ndefaults: {train_size: 16, validation_size: 6, test_size: 6}\n"


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def content(folder: Path, text: str) -> Any:
    return read_document("file", written(folder, text)).content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+3", 1000.0),
        ("-.5", -0.5),
        ("-12", -12),
        ("true", True),
        ("~", None),
        ("no", "no"),  # Norwegian
        ("on", "on"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("2026-01-31", "2026-01-31"),
        ("'1e-4'", "1e-4"),
        ("!!str 1", "1"),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{a: &x {p: 1, q: 2}, b: {<<: *x, q: 3}}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    found = content(tmp_path, f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "path", sorted(path for folder in ("experiments", "tuning", "analysis") for path in (ROOT / folder).rglob("*.yaml"))
)
def test_the_packaged_files_mean_the_same_to_pyyaml(path: Path) -> None:
    """Except for `2e-3`, which YAML 1.1 reads as text."""
    text = re.sub(r"(?<![.\d])(\d)e-", r"\1.0e-", path.read_text())
    assert read_document("file", path).content == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\na: 1\n", 2, "has the key a twice"),
        ("a:\n  - {b: 1, b: 2}\n", 2, "has the key b twice"),
        ("a: 0\n1: 2\n", 2, "has the key 1; keys must be text"),
        ("~: 2\n", 1, "keys must be text"),
        ("? [a]\n: b\n", 1, "has a list or mapping as a key"),
        ("a:\n" + "[" * 900, 2, "is nested deeper than 20 levels"),
        ("a: &a [*a]\n", 1, "is nested deeper than 20 levels"),
        ("a: &a {<<: *a}\n", 1, "<< must be followed by an alias of one mapping"),
        ("b: &b [x, x, x, x, x, x, x, x, x, x]\n" + "a: 1\n" * 0 + "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
         "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\n"
         "f: [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\n", 1, "has more than 100000 values"),
        ("a: " + "9" * 5000, 1, "has an integer of more than 18 digits"),
        ("a:\n  b: .inf\n", 2, "has .inf, which is not a finite number"),
        ("a: -.Inf\n", 1, "is not a finite number"),
        ("a: .nan\n", 1, "is not a finite number"),
        ("a: 1e999\n", 1, "is not a finite number"),
        ("a: !!python/name:os.system\n", 1, "no tags are allowed"),
        ("a: !!int 0x10\n", 1, "has 0x10, which is not an integer"),
        ("a: !!set {b}\n", 1, "no tags are allowed"),
        ("a: 1\nb: x\x1b[31m\n", 2, "has a control character"),
        ('"\\e[31m": 1\n', 1, "has a control character"),
        ("a: 1\n\tb: 2\n", 2, "cannot be read"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("a: {b: 1\n", 2, "cannot be read"),
        ("a: [*x]\n", 1, "undefined alias"),
        (b"a: 1\nb: \xff\n", 2, "it is not UTF-8"),
    ],
)  # fmt: skip
def test_what_no_file_may_contain_is_refused_with_its_line(
    tmp_path: Path, text: str | bytes, line: int, problem: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(OptionError) as refused:
        read_document("file", path)
    assert str(refused.value).startswith(f"file={path}: line {line}: ")
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 400


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "large.yaml").write_bytes(b"a: " + b"x" * 2**20)
    for path, problem in (
        (tmp_path, "no such file"),
        (tmp_path / "fifo.yaml", "no such file"),
        (tmp_path / ("x" * 5000), "no such file"),
        (tmp_path / "large.yaml", "larger than 1 MiB"),
        (written(tmp_path, 'a: "\\U00110000"'), "cannot be read"),
    ):
        with pytest.raises(OptionError, match=problem):
            read_document("file", path)


EXPERIMENTS = [
    ("name: n\nname: m\narms: [{variant: lora}]\n", 2, "has the key name twice"),
    ("about: a\nname: /etc/x\narms: [{variant: lora}]\n", 2, "name must be a name without slashes"),
    ("name: ../../x\narms: [{variant: lora}]\n", 1, "must be a name without slashes"),
    ('name: "a\\eb"\narms: [{variant: lora}]\n', 1, "name must be a name without slashes"),
    ('name: a\nabout: "\\e[31m"\narms: [{variant: lora}]\n', 2, "about has a control character"),
    ('name: a\nabout: "\\ud800"\narms: [{variant: lora}]\n', 2, "about has a control character"),
    ('name: a\narms:\n  - {variant: lora, model: "a\\rb"}\n', 3, "model=a\\rb: must be UTF-8"),
    ("name: 2026\narms: [{variant: lora}]\n", 1, "name must be text; put it in quotes"),
    (f"{SMALL}arms:\n  - {{variant: lora, options: [1]}}\n", 4, "options must be a mapping"),
    (f"{SMALL}arms:\n  - variant: lora-plus\n    options: {{rate_ratio: foo}}\n", 5, "must be a number from"),
    (f"{SMALL}arms:\n  - variant: lora-plus\n    options: {{rate_ratio: true}}\n", 5, "must be a number from"),
    (f"{SMALL}arms:\n  - variant: lora-plus\n    options: {{rate_ratio: -4}}\n", 5, "must be a number from"),
    (f"{SMALL}arms:\n  - variant: gralora\n    options: {{blocks: 2.5}}\n", 5, "must be a whole number from"),
    (f"{SMALL}arms:\n  - variant: ia3\n    options: {{feedforward: up_proj}}\n", 5, "must be a list of texts"),
    (f"{SMALL}arms:\n  - variant: lora\n    rank: [1.7]\n", 5, "rank=1.7: must be a whole number"),
    (f"{SMALL}arms:\n  - variant: lora\n    rank: [true]\n", 5, "rank must be a text, a number or a list"),
    (f"{SMALL}arms:\n  - variant: lora\n    model:\n", 5, "model must be a text, a number or a list"),
    (f"{SMALL}arms:\n  - variant: lora\n    model: 1.10\n", 5, "model must be text; put it in quotes"),
    (f"{SMALL}arms:\n  - variant: lora\n    rank: {{low: 1}}\n", 5, "rank must be a text, a number or a list"),
    (f"{SMALL}arms:\n  - variant: lora\n    language: no\n", 5, "language=no: allowed are"),
    (f"{SMALL}arms:\n  - variant: lora\n    rank: 999\n", 5, "rank=999: must be at most 576"),
    (f"{SMALL}arms: [{{variant: lora}}]\nextends: 3\n", 4, "extends must be text"),
    ("name: n\narms:\n  - variant: lora\ndefaults:\n  sead: 1\n", 5, "has no option 'sead'"),
    (f"{SMALL}arms: [{{variant: lora, seed: {[*range(400)]}, batch_size: {[*range(1, 400)]}}}]\n", 3, "100000 runs"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "problem"), EXPERIMENTS)
def test_a_bad_experiment_is_refused_by_a_dry_run_in_one_line(
    tmp_path: Path,
    text: str,
    line: int,
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text)
    assert main(["--file", path, "--dry_run", "true"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: file={path}: line {line}: ")
    assert problem in error
    assert error.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file.yaml"]


def test_an_error_in_the_extended_file_names_that_file(tmp_path: Path) -> None:
    written(tmp_path, f"{SMALL}arms:\n  - variant: lora\n    rank: 999\n")
    other = tmp_path / "other.yaml"
    other.write_text("extends: file.yaml\ndefaults: {seed: 2}\n")
    with pytest.raises(OptionError, match=r"^file=.*file\.yaml: line 5: in the run .* seed=2 .*rank=999"):
        read_grid(str(other))
    other.write_text("extends: file.yaml\n\ndefaults: {language: xx}\n")
    with pytest.raises(OptionError, match=r"^file=.*other\.yaml: line 3: in the run "):
        read_grid(str(other))


def test_numbers_of_settings_are_equal_whether_written_as_integers_or_not(tmp_path: Path) -> None:
    arms = [f"  - {{variant: lora-plus, learning_rate: 1e-4, options: {{rate_ratio: {n}}}}}\n" for n in ("4", "4.0")]
    (plan,) = read_grid(written(tmp_path, SMALL + "arms:\n" + "".join(arms))).plans
    assert plan.spec.variant_options == {"rate_ratio": 4.0}


@pytest.mark.parametrize("variant", CATALOGUE.values(), ids=CATALOGUE)
def test_the_settings_of_a_variant_are_within_their_ranges(variant: Any) -> None:
    for name, (low, high) in variant.option_ranges.items():
        searched = variant.space.options.get(name, ())
        assert all(low <= value <= high for value in (variant.options[name], *searched))
    numbers = {name for name, value in variant.options.items() if isinstance(value, int | float)}
    assert numbers == set(variant.option_ranges)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("rank: [4]\nlora: hello\n", 2, "lora must be a mapping of dimensions"),
        ("rank: [4]\nvera: hello\n", 2, "vera must be a mapping of dimensions"),
        ("vera: {alpha: [4]}\n", 1, "has 'alpha'; allowed for vera are"),
        ("rank: [4]\nrank: [8]\n", 2, "has the key rank twice"),
        ("learning_rate:\n  low: 1e-4\n  high: .inf\n", 3, "has .inf"),
        ("learning_rate: [2]\n", 1, "at most 1"),
        ("rank: [1.7]\n", 1, "rank=1.7: must be a whole number"),
        ("rank: ['4']\n", 1, "rank must be a list of positive whole numbers"),
        ("rank: [true]\n", 1, "rank must be a list"),
        ("rank: {low: 1, high: 8, middle: 3}\n", 1, "rank must be a list"),
        ("rank: {low: 1, high: 8.5}\n", 1, "rank=8.5: must be a whole number"),
        ("target_modules: [1]\n", 1, "target_modules must be a list of texts"),
        ("target_modules: ['']\n", 1, "target_modules=: must not be empty"),
        ("lora-plus: {rate_ratio: [1e9]}\n", 1, "must be a number from"),
    ],
)
def test_a_bad_space_is_refused_with_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(OptionError) as refused:
        read_space(path, [CATALOGUE["lora"]])
    assert str(refused.value).startswith(f"space={path}: line {line}: ")
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("\n1: x\n", 2, "has the key 1; keys must be text"),
        ("where: {1: x}\n", 1, "has the key 1; keys must be text"),
        ("where: {task: [1]}\n", 1, "task must be text"),
        ("where: {task: true}\n", 1, "task must be text"),
        ("source: 3\n", 1, "source must be text"),
        ("arguments: {metric: 3}\n", 1, "metric must be text"),
        ("arguments:\n", 1, "arguments must be a mapping"),
        ("test: correlation\n  arguments: {columns: [1]}\n", 2, "columns: entry 1 must be text"),
        ("test: correlation\n  arguments: {columns: []}\n", 2, "columns must be a list of at least one column"),
        ("test: correlation\n  arguments: {columns: [a], sign: true}\n", 2, "sign must be a whole number"),
        ("test: layer_correlation\n  arguments: {share: [en], layers: 1}\n", 2, "share must be text"),
        ("test: layer_correlation\n  arguments: {share: en, layers: [1]}\n", 2, "layers"),
        ("test: layer_correlation\n  arguments: {share: en, depth: [true, 1]}\n", 2, "depth: entry 1 must be"),
    ],
)
def test_a_bad_claim_is_refused_with_its_line(tmp_path: Path, text: str, line: int, problem: str) -> None:
    test = "" if text.startswith("test") else "  test: differ\n"
    path = written(tmp_path, f"claims:\n- name: mine\n  says: S.\n  outcome: tl\n{test}  {text}")
    with pytest.raises(OptionError) as refused:
        load(Path(path))
    assert str(refused.value).startswith(f"claims={path}: line {3 + bool(test) + line + 1}: ")
    assert problem in str(refused.value)


def test_a_process_refuses_a_file_before_it_imports_mlflow(tmp_path: Path) -> None:
    path = written(tmp_path, f"{SMALL}arms:\n  - {{variant: lora, options: [1]}}\n")
    command = [sys.executable, "-X", "importtime", "-m", "whichlora.experiment", "--file", path, "--dry_run", "true"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if not line.startswith("import time:")] == [
        f"error: file={path}: line 4: entry 1: options must be a mapping"
    ]
    assert "mlflow" not in done.stderr
