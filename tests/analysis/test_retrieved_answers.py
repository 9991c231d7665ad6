"""The score of a retrieved translation is its P@1, not the words that it shares with the right one."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis.runs.predictions import read_answers
from whichlora.data.metric_names import SENTENCES_RETRIEVED, WORDS_RETRIEVED


@pytest.mark.parametrize("measure", [SENTENCES_RETRIEVED, WORDS_RETRIEVED])
def test_it_is_the_measure_of_the_run(tmp_path: Path, measure: str) -> None:
    folder = tmp_path / "predictions"
    folder.mkdir()
    texts = {"id": ["1", "2", "3"], "gold": ["su iç", "geç", "gel"], "predicted": ["su al", "geç", "gel"]}
    pd.DataFrame({**texts, measure: [0.0, 1.0, 0.5]}).to_parquet(folder / "control.parquet")
    answers = read_answers(tmp_path.as_uri(), "1", "control", cache=tmp_path / "cache")
    assert answers.scores[0].tolist() == [0.0, 1.0, 0.5]
