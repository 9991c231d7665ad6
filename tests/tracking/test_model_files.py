"""Models from an archive are accepted only if loading and serving them runs no code of a stranger."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow.models import Model
from runs import plan_of

from whichlora.serving import logged_model, pyfunc, saved
from whichlora.tracking.model_files import LOADER_MODULE, problem_of


@pytest.fixture
def mlmodel(tiny_model: str, tmp_path: Path) -> Path:
    model = saved.of_plan(
        plan_of(tiny_model, quantization="nf4"), {"whichlora": "1", "torch": "2+cpu", "bitsandbytes": "0.5"}
    )
    assert model is not None
    logged_model.write(model, tmp_path / "model", Model(), pd.DataFrame({"premise": ["a"], "hypothesis": ["b"]}))
    return tmp_path / "model" / "MLmodel"


def test_what_a_run_logs_is_accepted(mlmodel: Path) -> None:
    assert pyfunc.__name__ == LOADER_MODULE
    assert problem_of(mlmodel) is None


@pytest.mark.parametrize(
    "change",
    [
        {"loader_module": "os"},
        {"loader_module": None},
        {"code": "code"},
        {"python_model": "python_model.pkl"},
        {"model_code_path": "model.py"},
        {"cloudpickle_version": "3.0.0"},
        {"data": "data"},
        {"predict_fn": "load"},
        {"config": {"base": "/elsewhere"}},
        {"env": {"conda": "../conda.yaml", "virtualenv": "python_env.yaml"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_loaders_are_refused(mlmodel: Path, change: dict[str, object]) -> None:
    content = yaml.safe_load(mlmodel.read_text())
    content["flavors"]["python_function"] |= change
    mlmodel.write_text(yaml.safe_dump(content))
    assert problem_of(mlmodel)


@pytest.mark.parametrize("flavors", [{}, [], {"python_function": None}, {"sklearn": {}}, "and sklearn"])
def test_other_flavours_are_refused(mlmodel: Path, flavors: object) -> None:
    content = yaml.safe_load(mlmodel.read_text())
    content["flavors"] = content["flavors"] | {"sklearn": {}} if flavors == "and sklearn" else flavors
    mlmodel.write_text(yaml.safe_dump(content))
    assert problem_of(mlmodel)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("requirements.txt", "torch==2", "torch @ https://example.org/torch.whl"),
        ("requirements.txt", "torch==2", "torchh==2"),
        ("requirements.txt", "torch==2", "--index-url https://example.org\ntorch==2"),
        ("requirements.txt", "torch==2", "-r ../requirements.txt"),
        ("conda.yaml", "conda-forge", "https://example.org/channel"),
        ("conda.yaml", "torch==2", "git+https://example.org/torch"),
        ("conda.yaml", "- pip:", "- evil=1.0\n- pip:"),
        ("python_env.yaml", "-r requirements.txt", "-r requirements.txt --pre"),
        ("python_env.yaml", "- setuptools", "- evil==1\n- setuptools"),
        ("MLmodel", "loader_module: whichlora", "loader_module: !!python/name:os.system\n    other: whichlora"),
        ("MLmodel", "input_example.json", "../../../other.json"),
        ("MLmodel", "flavors:", "flavors: {}\nflavors:"),
    ],
)
def test_other_requirements_and_files_are_refused(mlmodel: Path, name: str, before: str, after: str) -> None:
    path = mlmodel.parent / name
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    assert problem_of(mlmodel)


@pytest.mark.parametrize("name", ["requirements.txt", "conda.yaml", "python_env.yaml"])
def test_a_model_without_its_environment_is_refused(mlmodel: Path, name: str) -> None:
    (mlmodel.parent / name).unlink()
    assert problem_of(mlmodel)
