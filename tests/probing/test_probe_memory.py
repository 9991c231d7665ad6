"""Memory does not grow with the number of items: the peak of a process, at 100 and at 2,000 of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from whichlora.testing import save_tiny_model

ALLOWED = 60
"""MB between two peaks of some 700: equal calls differ by up to 10, and a full block of pairs takes some 30."""
STATUS = Path("/proc/self/status")
PEAK = f"""
import sys
from pathlib import Path
from whichlora.probing import main
status = main(sys.argv[1:])
(line,) = (line for line in Path("{STATUS}").read_text().splitlines() if line.startswith("VmHWM"))
print(line)
sys.exit(status)
"""
# Not `ru_maxrss`, which begins with what the process had that started this one.


def peak(items: int, *options: str) -> float:
    """The most memory in MB that a probe of so many items has held."""
    command = [sys.executable, "-c", PEAK, *options, "--items", str(items)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-2]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["language", "alignment"])
def test_twenty_times_as_many_items_take_no_more_memory(store: Path, kind: str) -> None:
    model = save_tiny_model(store / "wide", hidden_size=256)  # so that states that are kept would show
    options = {"language": ("--agreement", "0"), "alignment": ("--pairs", "pairs.tsv", "--against", "base")}[kind]
    (store / "pairs.tsv").write_text("".join(f"word number {i}\tneno namba {i}\n" for i in range(2000)))
    few, many = (peak(items, "--model", str(model), "--kind", kind, *options) for items in (100, 2000))
    assert many < few + ALLOWED
