"""Names where the files of the paper's tables are now, for those who give an earlier name."""

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
    "table12": "table-05-09-12-ranks.yaml",
    "table13": "table-13-layers.yaml",
    "table14": "table-14-instruct-and-compositions.yaml",
}
"""The new file by the stem of the earlier one; some of the earlier numbers were not the paper's."""


def moved_to(path: Path) -> str | None:
    """Return where the content of an earlier file is, or None if it is no such name."""
    if path.suffix not in ("", ".yaml", ".yml") or path.stem not in MOVED:
        return None
    return f"is now {FOLDER}/{MOVED[path.stem]}"
