"""Peak memory of a probe does not grow with the number of items, here 100 and 2,000."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from whichlora.testing import save_tiny_model

ALLOWED = 60
"""Allowed difference (MB) of two peaks of about 700: equal calls differ by up to 10, a block of pairs needs some 30."""
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
# Not `ru_maxrss`, which starts from the peak of the parent process.


def peak(items: int, *options: str) -> float:
    """Return the peak memory in MB of a probe of this many items."""
    command = [sys.executable, "-c", PEAK, *options, "--items", str(items)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    return int(process.stdout.split()[-2]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("kind", ["language", "alignment"])
def test_twenty_times_as_many_items_need_no_more_memory(store: Path, kind: str) -> None:
    model = save_tiny_model(store / "wide", hidden_size=256)  # so that stored states would be visible
    options = {"language": ("--agreement", "0"), "alignment": ("--pairs", "pairs.tsv", "--against", "base")}[kind]
    (store / "pairs.tsv").write_text("".join(f"word number {i}\tneno namba {i}\n" for i in range(2000)))
    few, many = (peak(items, "--model", str(model), "--kind", kind, *options) for items in (100, 2000))
    assert many < few + ALLOWED
