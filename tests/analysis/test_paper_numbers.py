"""Tables have the numbers of the paper if their runs are of its design, and no others."""

from __future__ import annotations

import re

import pandas as pd
import paper_runs
import pytest

from analysis.tables.paper_numbers import numbered

KINDS = ("f1", "f1-means", "parameters", "efficiency", "hyperparameters", "hyperparameters-alpha")
MAIN = {"f1": 2, "parameters": 1, "efficiency": 3, "hyperparameters": 10}
OTHER = {"Llama-3.2-3B": {"f1": 7, "f1-means": 4}, "Qwen3-8B-Base": {"f1": 8, "f1-means": 4}}
PAPER = {
    "table-01-parameters": {"": {"parameters": 1}},
    "table-02-main": {"": MAIN},
    "table-04-07-08-other-models": OTHER,
    "table-05-09-12-ranks": {"": {"f1": 9, "f1-means": 5, "hyperparameters-alpha": 12}},
    "table-06-11-tydiqa": {"": {"f1": 6, "hyperparameters": 11}},
    "table-13-layers": {"": {"f1": 13}},
    "table-14-instruct-and-compositions": {"": {"f1": 14}},
}


def numbers_of(rows: pd.DataFrame) -> dict[str, int]:
    """Return the paper's numbers of the tables of a setting, by kind."""
    titles = {kind: numbered("T.", rows, kind) for kind in KINDS}
    return {kind: int(re.search(r"Table (\d+) of", title)[1]) for kind, title in titles.items() if title != "T."}


def settings_of(name: str) -> list[pd.DataFrame]:
    """Return the runs of an experiment file of the paper, by setting, with the untrained model's."""
    runs = pd.DataFrame([dict(run) for run in paper_runs.runs_of(paper_runs.DESIGNS / f"{name}.yaml")])
    runs = runs.assign(outcome="tl")
    parts = [part for _, part in runs.groupby(["model", "train_size"])]
    return [pd.concat([part, part.iloc[:1].assign(variant="none", layers="", rank=None)]) for part in parts]


@pytest.mark.parametrize("name", PAPER)
def test_tables_bear_the_numbers_of_the_paper(name):
    for rows in settings_of(name):
        numbers = next(found for model, found in PAPER[name].items() if model in rows["model"].iloc[0])
        assert numbers_of(rows) == numbers
        assert numbers_of(rows.assign(model=rows["model"] + " 3f2a01")) == numbers


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("table-02-main", {"language": "tr"}),
        ("table-02-main", {"train_size": 100}),
        ("table-02-main", {"tl_ratio": 0.2}),
        ("table-02-main", {"variant": "full"}),
        ("table-02-main", {"model": "SmolLM2-135M"}),
        ("table-05-09-12-ranks", {"rank": 4}),
        ("table-06-11-tydiqa", {"language": "fi"}),
        ("table-13-layers", {"layers": "0-1"}),
        ("table-14-instruct-and-compositions", {"train_size": 5000}),
    ],
)
def test_tables_of_other_designs_bear_no_number_of_the_paper(name, change):
    """One run that is of no design of the paper is enough, and so is a method without runs."""
    rows = settings_of(name)[0].reset_index(drop=True)
    ((column, value),) = change.items()
    assert "f1" not in numbers_of(rows.assign(**change))
    assert "f1" not in numbers_of(pd.concat([rows, rows.iloc[:1].assign(**{column: value})]))
    if rows["variant"].nunique() > 2:
        assert numbers_of(rows[rows["variant"] != "pissa"]) == {}
