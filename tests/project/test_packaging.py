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
