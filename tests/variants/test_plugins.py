"""Variants and tasks declared by an installed package: found, checked by the shared cases, run and logged."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from runs import SMALL, plan_of

from tuning.tune import OPTIONS, study_configs
from whichlora.config.options import parse_options
from whichlora.errors import OptionError, ProofError
from whichlora.testing import check_task, check_variant
from whichlora.testing.variant_runs import check_resuming
from whichlora.training.multi_adapter import parse_pack
from whichlora.variants import CATALOGUE, get_variant, plugins, provider, variant_names
from whichlora.variants.command import main as list_variants

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "example_package"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder into which pip has installed the example package."""
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")  # a build writes into it
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--target", str(folder), str(source)]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.fixture
def packages(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make the example package importable, and return a function that declares further packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(folder)

    def declare(package: str, module: str, **variants: str) -> None:
        """Declare variants (names with _ for -) that are attributes of a module of this content."""
        (folder / f"{package}.py").write_text(module)
        metadata = folder / f"{package}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"{name.replace('_', '-')} = {package}:{attribute}" for name, attribute in variants.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{plugins.GROUP}]", *lines, ""]))
        plugins.declarations.cache_clear()

    plugins.declarations.cache_clear()
    yield declare
    plugins.declarations.cache_clear()
    for name in ("whichlora_example", "wrong", "faulty", "broken", "rival"):
        sys.modules.pop(name, None)


def called(folder: Path, site: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT / "src"), str(ROOT)])}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.slow
def test_the_example_package_passes_the_shared_cases(site: Path, tmp_path: Path) -> None:
    code = (
        "import whichlora_example as e, whichlora.testing as t; t.check_task(e.Heights); t.check_variant('lora-b', '.')"
    )
    done = called(tmp_path, site, "-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_run_logs_the_version_of_the_package_but_not_in_its_spec(store: Path, site: Path, tiny_model: str) -> None:
    options = [text for name, value in {**SMALL, "model": tiny_model}.items() for text in (f"--{name}", value)]
    done = called(store, site, "-m", "whichlora.run", "--variant", "lora-b", *options)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(
        [client.get_experiment_by_name("whichlora").experiment_id], "tags.`whichlora.kind` = 'run'"
    )
    assert run.data.params["variant"] == "lora-b"
    assert run.data.params["version/whichlora-example"] == "0.1"
    assert "whichlora-example" not in Path(
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="spec.json")
    ).read_text(encoding="utf-8")


def test_names_are_known_without_importing_a_package(packages: Callable[..., None]) -> None:
    assert variant_names() == [*CATALOGUE, "lora-b"]
    with pytest.raises(OptionError, match=r"allowed are lora, .*, none, lora-b \(did you mean 'lora-b'\?\)"):
        parse_options({"variant": "lora-bb"})
    assert parse_options({"variant": "lora-b"}).variant == "lora-b"
    assert "whichlora_example" not in sys.modules
    variant = get_variant("lora-b")
    assert pickle.loads(pickle.dumps(variant)) is variant
    assert (str(provider("lora-b")), provider("lora"), provider("loraa")) == ("whichlora-example 0.1", None, None)


def test_the_help_imports_no_package(packages: Callable[..., None], tmp_path: Path) -> None:
    packages("broken", "raise RuntimeError('imported')", broken="VARIANT")
    help_shown = called(tmp_path, tmp_path / "site", "-m", "whichlora.run", "--help")
    assert (help_shown.returncode, help_shown.stderr) == (0, "")
    assert "one of an installed package" in " ".join(help_shown.stdout.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing", r"faulty:MISSING of faulty 1\.0 cannot be loaded: AttributeError: .*MISSING"),
        ("text", r"faulty:TEXT of faulty 1\.0 is not a Variant but of type str"),
        ("lora-c", r"faulty:LORA_B of faulty 1\.0 is called lora-b; the entry point must have that name"),
        ("broken", r"broken:VARIANT of broken 1\.0 cannot be loaded: RuntimeError: imported"),
        ("twice", r"is declared by broken 1\.0 and faulty 1\.0; uninstall all but one"),
    ],
)
def test_a_wrong_declaration_is_named(
    packages: Callable[..., None], tiny_model: str, name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from whichlora_example import LORA_B\nTEXT = 'lora'"
    packages("faulty", code, missing="MISSING", text="TEXT", lora_c="LORA_B", twice="LORA_B")
    packages("broken", "raise RuntimeError('imported')", broken="VARIANT", twice="VARIANT")
    with pytest.raises(OptionError, match=f"^variant={name}: .*{message}"):
        plan_of(tiny_model, variant=name)
    assert list_variants(["--model", tiny_model]) == 0
    out, err = capsys.readouterr()
    assert [block.split()[1] for block in out.strip().split("\n\n")] == [*CATALOGUE, "lora-b"]
    assert re.search(f"^warning: variant={name}: .*{message}", err, re.MULTILINE)


def test_a_name_of_the_catalogue_cannot_be_overridden(
    packages: Callable[..., None], tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages("rival", "raise RuntimeError('imported')", lora="LORA")
    assert get_variant("lora") is CATALOGUE["lora"]
    assert variant_names() == [*CATALOGUE, "lora-b"]
    message = "rival 1.0 declares a variant lora, which is ignored: the catalogue has that name"
    assert list_variants(["--model", tiny_model]) == 0
    assert capsys.readouterr().err == f"warning: {message}\n"
    with pytest.raises(AssertionError, match=message):
        check_variant("lora", tmp_path)


def test_it_can_be_tuned(packages: Callable[..., None], tiny_model: str, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("rank: [2, 4]\nlora-b: {rank: [8]}\n")
    texts = {name: default for name, (default, _) in OPTIONS.items()} | {"model": tiny_model, "space": str(space)}
    lora, outside = study_configs(texts | {"variant": "lora,lora-b"})
    assert outside.variant is get_variant("lora-b")
    assert [setting.space.to_json()["rank"] for setting in (lora, outside)] == [[2, 4], [8]]
    assert "lora-b" not in {setting.variant.name for setting in study_configs(texts | {"variant": "all"})}
    with pytest.raises(OptionError, match=r"allowed are lora, .*, full, lora-b, all"):
        study_configs(texts | {"variant": "lora-d"})


def test_it_trains_in_no_shared_pass(packages: Callable[..., None], tiny_model: str) -> None:
    with pytest.raises(OptionError, match="lora-b is not in the catalogue"):
        parse_pack("2", [plan_of(tiny_model, variant="lora-b")])


WRONG = """
from dataclasses import replace
import torch
from whichlora.models.adapter_layers import adapter_modules
from whichlora.variants.methods.lora import lora_parameter_count
from whichlora_example import LORA_B, _freeze_a

def touch_another_layer(model):
    _freeze_a(model)
    model.get_base_model().model.norm.weight.data += 1

def draw_unseeded(model):
    _freeze_a(model)
    generator = torch.Generator()
    generator.seed()
    for _, module in adapter_modules(model):
        module.lora_A["default"].weight.data.normal_(std=0.5, generator=generator)

COUNT = replace(LORA_B, name="count", expected_parameters=lora_parameter_count)
UNFROZEN = replace(LORA_B, name="unfrozen", expected_parameters=lora_parameter_count, after_attach=None)
TOUCHING = replace(LORA_B, name="touching", after_attach=touch_another_layer)
UNSEEDED = replace(LORA_B, name="unseeded", after_attach=draw_unseeded)
"""


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("count", AssertionError, r"the formula gives [\d,]+ parameters, PEFT builds"),
        ("unfrozen", ProofError, r"lora_A.* is trained beside B"),
        ("touching", AssertionError, r"changed model\.norm\.weight, which was not chosen"),
    ],
)
def test_the_shared_case_fails_for_a_variant_that_is_not_what_it_says(
    packages: Callable[..., None], tmp_path: Path, name: str, error: type[Exception], message: str
) -> None:
    packages("wrong", WRONG, **{name: name.upper()})
    with pytest.raises(error, match=message):
        check_variant(name, tmp_path)


@pytest.mark.slow
def test_resuming_to_another_result_is_noticed(packages: Callable[..., None], tmp_path: Path, tiny_model: str) -> None:
    packages("wrong", WRONG, unseeded="UNSEEDED")
    with pytest.raises(AssertionError, match="predictions of unseeded on en, resumed and not"):
        check_resuming("unseeded", tiny_model, tmp_path / "work")


def _load_train_for_test(load: Callable[..., object]) -> Callable[..., object]:
    return lambda self, language, split, **options: load(self, language, split.replace("test", "train"), **options)


@pytest.mark.parametrize(
    ("attribute", "change", "message"),
    [
        ("parallel", lambda value: False, "parallel is False, but ids and strata are the same"),
        ("load", _load_train_for_test, "60 prompts are in two splits"),
        ("prompt", lambda f: lambda self, item: f(self, item) + " ", "the prompt ends with a space"),
        ("answer", lambda f: lambda self, item: f(self, item).strip(), "is not one space and a text"),
        ("gold", lambda f: lambda self, item: ("neutral",), "is not the label"),
        ("metrics", lambda f: lambda self, *answers: {"f1": 1.0}, "no answers score 1.0"),
        (
            "shallow_baselines",
            lambda f: lambda self, *items: {"majority": 1.5},
            "shallow baselines are not from 0 to 1",
        ),
    ],
)
def test_the_shared_case_fails_for_a_task_that_is_not_what_it_says(
    packages: Callable[..., None], attribute: str, change: Callable[[object], object], message: str
) -> None:
    from whichlora_example import Heights

    wrong = type("Wrong", (Heights,), {attribute: change(getattr(Heights, attribute))})
    with pytest.raises(AssertionError, match=message):
        check_task(wrong)
