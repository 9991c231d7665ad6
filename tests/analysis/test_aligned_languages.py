"""Alignment probes of several languages stand in one table, with each language's chance and the mean of a group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic import log_run, spec
from synthetic_probes import aligned_table, log_aligned
from test_representation_probes import read

from analysis.records import find
from analysis.tables import representations
from analysis.tables.aligned_languages import language_tables
from analysis.tables.formats import markdown

PAIRS = {"tr": 100, "kk": 50, "sw": 40}
LAYER = 7  # of the synthetic model's 12, as in XTREME-R


def table_of(top: float, pairs: int) -> pd.DataFrame:
    """Return the table of a probe with CSLS, which finds a tenth more of the translations than the raw cosine."""
    table = aligned_table(top=top, pairs=pairs)
    raw = table[table["measure"].isin(["p1/to/raw", "p1/from/raw"])]
    csls = raw.assign(measure=raw["measure"].str.replace("raw", "csls"), value=raw["value"] + 0.1)
    return pd.concat([table, csls], ignore_index=True)


def log_languages(experiment: str, pairs: dict[str, int] = PAIRS) -> None:
    for variant, top in (("lora", 0.3), ("none", 0.2)):
        for code, count in pairs.items():
            own = spec(variant, language=code)
            run_id = log_run(own, experiment, items=0) if variant == "lora" else None
            more = {"pairs": "tatoeba", "language": code, "digest": code}
            log_aligned(own, experiment, source=run_id, table=table_of(top + count / 1000, count), **more)


def test_the_table_has_every_language_and_the_turkic_mean(store):
    log_languages("e")
    (table,), records = language_tables(read("e").alignment)
    shown = [[" / ".join(part.text for part in cell) for cell in row] for row in table.rows]
    assert [row[:2] for row in shown[:4]] == [
        ["LoRA", "Turkish"],
        ["LoRA", "Kazakh"],
        ["LoRA", "Turkic, mean of 2"],
        ["LoRA", "Swahili"],
    ]
    assert [row[0] for row in shown[4:]] == ["base model"] * 4
    assert [row[2:4] for row in shown[:4]] == [["100", "0.0100"], ["50", "0.0200"], ["", "0.0150"], ["40", "0.0250"]]
    assert shown[0][4:] == ["0.400 / 0.200", "0.390 to 0.410", "0.400 / 0.200", "0.500 / 0.300", "1"]
    (mean,) = find(records, test="p1/to/raw", groups=("LoRA", "Turkic, mean of 2"))
    assert (mean.effect, mean.n, mean.interval) == (pytest.approx((0.4 + 0.35) / 2), 2, None)
    assert "after block 7 (counted from 0)" in table.caption
    assert set(table.numbers["layer"]) == {LAYER}


def test_probes_of_earlier_versions_have_no_csls_and_a_language_alone_no_table(store):
    run_id = log_run(spec(), "e", items=0)
    for code in ("tr", "kk"):
        log_aligned(spec(), "e", source=run_id, table=aligned_table(), language=code, digest=code)
    (table,), _ = language_tables(read("e").alignment)
    assert {row[7][0].text for row in table.rows} == {"–"}
    log_aligned(spec(), "f", source=log_run(spec(), "f", items=0), table=aligned_table())
    assert language_tables(read("f").alignment) == ([], [])


def test_seeds_are_averaged_and_the_language_of_a_run_is_not_a_line_of_its_own(store):
    for code in ("tr", "kk"):
        for seed in (1, 2):
            own = spec(language=code, seed=seed)
            table = table_of(0.2 + 0.1 * seed, 50)
            more = {"pairs": "tatoeba", "language": code, "digest": code}
            log_aligned(own, "e", source=log_run(own, "e", items=0), table=table, **more)
    (table,), records = language_tables(read("e").alignment)
    assert {row[0][0].text for row in table.rows} == {"LoRA"}
    (turkish,) = find(records, test="p1/to/raw", groups=("LoRA", "tr"))
    assert (turkish.effect, turkish.n) == (pytest.approx(0.35), 2)
    assert np.isfinite(turkish.interval).all()


def test_the_report_has_it_among_the_tables_of_translations(store):
    log_languages("e", {"tr": 100, "kk": 50})
    tables, _ = representations.make_tables(read("e"))
    assert [table.name for table in tables][-1] == "translations-languages"
    assert "| LoRA | Turkic, mean of 2 |" in markdown(tables[-1])
