"""Parts of a probe that are damaged on disk are measured again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whichlora.probing.partial_results import PART_ITEMS, PartialResults

COUNT = 3 * PART_ITEMS - 5


def measure(indices: range) -> dict[str, np.ndarray[Any, Any]]:
    return {"states": np.outer(np.array(indices, dtype=float), [1, 0.5, 7]), "seconds": np.array([1.0])}


def filled(folder: Path) -> tuple[PartialResults, list[int]]:
    """Return the results and the first items of the parts that were measured."""
    results, measured = PartialResults(folder, COUNT), []

    def note(indices: range) -> dict[str, np.ndarray[Any, Any]]:
        measured.append(indices.start)
        return measure(indices)

    results.fill(note, description="test")
    return results, measured


def flip(position: float) -> Callable[[bytes], bytes]:
    def flipped(content: bytes) -> bytes:
        i = int(position * len(content))
        return content[:i] + bytes([content[i] ^ 16]) + content[i + 1 :]

    return flipped


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:300], flip(0.3), flip(0.5), flip(0.0)]
)
def test_a_damaged_part_is_measured_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert filled(tmp_path)[1] == [0, PART_ITEMS, 2 * PART_ITEMS]
    assert filled(tmp_path)[1] == []
    part = tmp_path / "part-000001.npz"
    part.write_bytes(damage(part.read_bytes()))
    assert not PartialResults(tmp_path, COUNT).complete
    results, measured = filled(tmp_path)
    assert measured == [PART_ITEMS]
    assert capsys.readouterr().err.count(f"warning: {part} is damaged") == 1
    assert results.complete
    np.testing.assert_array_equal(results.gather("states", tmp_path / "all.npy"), measure(range(COUNT))["states"])


def test_no_flipped_bit_changes_a_result(tmp_path: Path) -> None:
    filled(tmp_path)
    part, expected = tmp_path / "part-000001.npz", measure(range(COUNT))["states"]
    content = part.read_bytes()
    for i in range(0, len(content), 3):
        part.write_bytes(flip((i + 0.5) / len(content))(content))
        found = filled(tmp_path)[0].gather("states", tmp_path / "all.npy")
        np.testing.assert_array_equal(found, expected, err_msg=f"byte {i}")
