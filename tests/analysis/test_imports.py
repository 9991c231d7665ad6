"""A laptop without torch can write the report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCKED = ("torch", "peft", "transformers", "optuna", "accelerate", "bitsandbytes")
SCRIPT = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Blocked())
from analysis.analyze import main
sys.exit(main(sys.argv[1:]))
"""


def _report_without_them(out: Path, **options: object) -> None:
    given = {"output": out, **options}
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        *(str(part) for name, value in given.items() for part in (f"--{name}", value)),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_report_is_written_where_torch_and_peft_cannot_be_imported(full, written, tmp_path):
    """And it is the same to the byte as this process's, whose sets and dictionaries have another order."""
    out = tmp_path / "out"
    _report_without_them(out, experiment="full", claims=written.parent / "mine.yaml")
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert files == {path.relative_to(written): path.read_bytes() for path in written.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_probes_and_injections_are_read_there_too(full, tmp_path):
    from analysis import analyze

    there, here = tmp_path / "there", tmp_path / "here"
    _report_without_them(there, experiment="bare")
    assert analyze.main(["--experiment", "bare", "--output", str(here)]) == 0
    files = {path.relative_to(there): path.read_bytes() for path in there.rglob("*") if path.is_file()}
    assert files == {path.relative_to(here): path.read_bytes() for path in here.rglob("*") if path.is_file()}
    for name in ("figures/layers-sw-token.png", "figures/alignment-sw.png", "figures/alignment-cka-sw.png"):
        assert (there / name).is_file()
    for name in ("detectors", "translations-sw", "cka-sw", "weights", "injection-runs", "injection-pairs"):
        assert (there / "tables" / f"{name}.csv").is_file()


@pytest.mark.slow
def test_a_report_is_written_in_an_environment_without_them(full, tmp_path):
    """An environment of its own sees this one's packages, but for torch and what stands on it."""
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    target = tmp_path / "packages"
    target.mkdir()
    for entry in site.iterdir():
        if not entry.name.lower().replace("-", "_").startswith((*BLOCKED, "nvidia", "whichlora", "__editable__")):
            (target / entry.name).symlink_to(entry)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT, target)))}
    for package in ("torch", "peft"):
        missing = subprocess.run(
            [str(python), "-c", f"import {package}"], env=environment, capture_output=True, check=False
        )
        assert b"ModuleNotFoundError" in missing.stderr
    command = [str(python), "-m", "analysis.analyze", "--experiment", "full", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
