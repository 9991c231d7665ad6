"""Methods are named by what they differ in, in a form that can be listed."""

from __future__ import annotations

import json

import pandas as pd

from analysis.report.wording import join
from analysis.runs.methods import name_methods


def names(*settings: dict[str, object], **columns: object) -> list[str]:
    cell = {
        "setting": "s",
        "language": "sw",
        "tl_ratio": 0.5,
        "seed": 1,
        "variant": "molf",
        "arm": "matched",
        "rank": 8,
    }
    rows = [{**cell, "adapter": str(n), "variant_options": json.dumps(own)} for n, own in enumerate(settings)]
    frame, merges, notes = name_methods(pd.DataFrame(rows).assign(**columns), ("rank", "variant_options"))
    assert merges == notes == ()
    return list(frame["method"])


def test_only_the_settings_that_differ_are_part_of_a_name():
    both = {"topk": 1, "full_rate": 1.0}
    assert names({**both, "score": "epd"}, {**both, "score": "pfn"}) == ["MoLF, score epd", "MoLF, score pfn"]
    assert names({**both, "score": "epd"}) == ["MoLF"]
    assert names({"full_rate": 0.5}, {"full_rate": 1.0}) == ["MoLF, full rate 0.5", "MoLF, full rate 1"]
    assert names({"score": "epd"}, {}) == ["MoLF, score epd", "MoLF, score none"]
    assert names({"topk": 1}, {"topk": 2}, rank=[8, 16]) == ["MoLF, rank 8, topk 1", "MoLF, rank 16, topk 2"]


def test_names_with_commas_are_separated_by_semicolons():
    assert join(["LoRA", "DoRA", "VeRA"], "or") == "LoRA, DoRA or VeRA"
    assert join(["LoRA, rank 8", "LoRA, rank 16"]) == "LoRA, rank 8; and LoRA, rank 16"
    assert join(["LoRA, rank 8"]) == "LoRA, rank 8"
