"""Names where the design of a table, or of an earlier file, is now, for those who give that name."""

from __future__ import annotations

from pathlib import Path

FOLDER = "experiments/paper"
MOVED = {
    "table1": "table-01-parameters.yaml",
    "table2": "table-02-main.yaml",
    "table3": "table-02-main.yaml, from whose runs Table 3 is read",
    "table4": "table-06-11-tydiqa.yaml",
    "table5": "table-04-07-08-other-models.yaml",
    "table6": "table-04-07-08-other-models.yaml",
    "table7": "table-14-instruct-and-compositions.yaml",
    "table8": "table-05-09-12-ranks.yaml",
    "table9": "table-05-09-12-ranks.yaml",
    "table10": "table-02-main.yaml, from whose runs Table 10 is read",
    "table11": "table-06-11-tydiqa.yaml",
    "table12": "table-05-09-12-ranks.yaml",
    "table13": "table-13-layers.yaml",
    "table14": "table-14-instruct-and-compositions.yaml",
}
"""The file of a table in `FOLDER` by the stem of the earlier one; some of the earlier numbers were not the paper's."""
_ONE_DESIGN = ("molf", "hybrid-lora")
"""Variants whose earlier files are one file now."""


def moved_to(path: Path) -> str | None:
    """Return where the content of an earlier file is, or None if it is no such name."""
    stem = path.stem.lower()
    if path.suffix.lower() not in ("", ".yaml", ".yml"):
        return None
    if stem in _ONE_DESIGN:
        return "is now experiments/lora-and-full.yaml"
    return f"is now {FOLDER}/{MOVED[stem]}" if stem in MOVED else None
