"""`pip install .` installs the command and the four packages with their data."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"whichlora": ROOT / "src" / "whichlora"} | {n: ROOT / n for n in ("tuning", "analysis", "comparing")}


def output_of(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command in a folder, without the import paths of this process, and return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW_", "WHICHLORA_"))}
    ended = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the repository, which has no earlier build."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "repository"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("src", "tuning", "analysis", "comparing", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    # With build isolation pip would have to download setuptools.
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder]
    output_of([sys.executable, "-m", "pip", "wheel", *options, copy], folder)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_contains_exactly_the_modules_and_their_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "whichlora = whichlora.__main__:script" in archive.read(entry).decode()
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == expected
    assert {"analysis/claims/paper.yaml", "analysis/claims/field.yaml", "analysis/report/page.html.j2"} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


CONSUMER = """
from analysis.decimals import fixed
from comparing.budget import device_seconds
from tuning.halving.rungs import Rungs
from whichlora.models.packaged import packaged_model_path
from whichlora.variants.base import Hyperparameters

shown: str = fixed(0.5, 1)
budget: float | None = device_seconds("20", "auto")
points: int = Rungs(3).points(0)
path: str = str(packaged_model_path())
values = Hyperparameters(rank=8, learning_rate=1e-3, epochs=1, batch_size=4, warmup=0.0, source="here")

wrong_1: int = fixed(0.5, 1)
wrong_2: str = device_seconds("20", "auto")
wrong_3: str = Rungs(3).points(0)
wrong_4: int = packaged_model_path()
wrong_5 = Hyperparameters(rank="eight", learning_rate=1e-3, epochs=1, batch_size=4, warmup=0.0, source="here")
"""


@pytest.mark.slow
def test_a_type_checker_reads_the_types_of_every_installed_package(wheel: Path, tmp_path: Path) -> None:
    """Without `py.typed` in a package its types would be unknown, and its wrong uses would not be found."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    where = output_of([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path).strip()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(where)
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--python-executable={python}"]
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [*command, "consumer.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    lines = CONSUMER.splitlines()
    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    wrong = [number for number, line in enumerate(lines, 1) if line.startswith("wrong_")]
    assert found == wrong, done.stdout + done.stderr


@pytest.mark.slow
def test_the_installed_commands_work_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """The virtual environment has the dependencies of this one, but not its whichlora."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    binaries = tmp_path / "venv" / "bin"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    output_of([binaries / "python", "-m", "pip", "install", *options, wheel], tmp_path)
    own = Path(
        output_of(
            [binaries / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], tmp_path
        ).strip()
    )
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("whichlora", "__editable__", "_virtualenv")) and path.suffix != ".pth":
            (dependencies / path.name).symlink_to(path)
    (own / "dependencies.pth").write_text(f"{dependencies}\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    for module in PACKAGES:
        where = output_of([binaries / "python", "-c", f"import {module}; print({module}.__file__)"], empty)
        assert where.startswith(str(own))
    assert output_of([binaries / "whichlora", "--help"], empty).startswith("Usage: whichlora ")
    for name in ("run", "variants", "tune", "compare", "analyze"):
        assert output_of([binaries / "whichlora", name, "--help"], empty).startswith(f"Usage: whichlora {name} ")
    assert output_of([binaries / "python", "-m", "analysis.analyze", "--help"], empty).startswith("Usage: ")
    assert output_of([binaries / "whichlora", "studies", "status"], empty) == "There are no studies.\n"
    claims = "from analysis.claims import claims; print(all(path.is_file() for path in claims.PACKAGED.values()))"
    assert output_of([binaries / "python", "-c", f"import comparing.pipeline; {claims}"], empty) == "True\n"
