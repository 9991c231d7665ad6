"""The commands of docs/your-own-task lead from a folder of files to a report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "your-own-task"


def test_the_page_shows_the_files_of_the_walk() -> None:
    page = (DOCS / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert shown == [(DOCS / name).read_text(encoding="utf-8") for name in ("reviews.yaml", "compare.yaml")]


@pytest.mark.slow
def test_the_walk_leads_to_a_report(tmp_path: Path) -> None:
    for name in ("reviews.yaml", "compare.yaml"):
        shutil.copy(DOCS / name, tmp_path)
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WHICHLORA_"))}
    environment = own | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    page = (DOCS / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"\n\n```\n(.*?)```", page, re.DOTALL)
    walk = [text for text in blocks if "whichlora analyze" in text or "whichlora compare" in text]
    assert len(walk) == 2
    for line in "".join(walk).splitlines():
        words = line.partition("#")[0].split()
        program = [str(DOCS / words[1])] if words[0] == "python" else ["-m", "whichlora"]
        command = [sys.executable, *program, *words[2 if words[0] == "python" else 1 :]]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Take none: no method is shown to exceed the best shallow baseline." in done.stdout
    report = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "German" in report
    assert "Turkish" in report
    assert "F1, English" not in report
    assert json.loads((tmp_path / "report" / "statistics.json").read_text(encoding="utf-8"))
