"""The retrieval probe: average precision as LAReQA defines it, XQuAD-R's files, and a run on the tiny model."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from folders import xquad_r_folder
from probes import probed, probes, table

from whichlora.errors import OptionError
from whichlora.evaluation.ranking import tied_groups
from whichlora.probing import main
from whichlora.probing.retrieval import precision, xquad_r
from whichlora.probing.retrieval.precision import average_precision, expected_precision


def ordered(*candidates: int) -> list[list[int]]:
    """Return candidates without ties, best first."""
    return [[candidate] for candidate in candidates]


def test_average_precision_is_that_of_the_definition() -> None:
    assert average_precision({1, 2, 3}, ordered(1, 9, 2, 8, 7, 3)) == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert average_precision({1, 2}, ordered(9, 8, 7)) == 0
    assert average_precision(set(range(40)), ordered(*range(40))) == 1  # all that can be among the first 20
    assert average_precision({0, 99}, ordered(*range(20), 99)) == pytest.approx(1 / 2)  # the 21st does not count


@pytest.mark.parametrize(("depth", "relevant"), [(2, 1), (2, 3), (4, 2), (20, 3)])
def test_chance_is_the_mean_over_all_orders(depth: int, relevant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "DEPTH", depth)
    orders = list(permutations(range(6)))
    mean = np.mean([average_precision(set(range(relevant)), ordered(*order)) for order in orders])
    assert expected_precision(relevant, 6) == pytest.approx(mean)


def test_the_best_are_in_the_order_of_their_scores() -> None:
    similarities = np.random.default_rng(0).normal(size=50)
    groups = tied_groups(similarities, 20)
    np.testing.assert_array_equal(groups, np.argsort(-similarities)[:20, None])
    assert len(tied_groups(similarities[:3], 20)) == 3


@pytest.mark.parametrize("place", ["", "xquad-r"])
def test_an_answer_counts_in_every_language(tmp_path: Path, place: str) -> None:
    xquad_r_folder(tmp_path / place)
    data = xquad_r.read(("en", "tr"), str(tmp_path), 2)
    assert [text.text for text in data.candidates[:2]] == ["It is red.", "It is big."]
    assert [(text.language, text.text) for text in data.questions] == [
        *(("en", "color en?"), ("en", "size en?"), ("tr", "color tr?"), ("tr", "size tr?"))
    ]
    assert data.relevant == [frozenset({0, 4}), frozenset({1, 5})] * 2
    assert len(data.candidates) == 8  # also of paragraphs of other questions


@pytest.mark.parametrize(
    ("language", "damage", "message"),
    [
        ("de", None, "data_dir=.*: has no de.json; it has en.json, hi.json, tr.json"),
        ("en", "{", "en.json is not a file of XQuAD-R .JSONDecodeError"),
        (
            "en",
            '{"data": [{"paragraphs": [{"context": "a"}]}]}',
            "en.json is not a file of XQuAD-R .KeyError",
        ),
        ("en", '{"data": []}', "data_dir=.*: en.json has no questions"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(tmp_path: Path, language: str, damage: str | None, message: str) -> None:
    xquad_r_folder(tmp_path)
    if damage is not None:
        (tmp_path / f"{language}.json").write_text(damage)
    with pytest.raises(OptionError, match=message):
        xquad_r.read((language,), str(tmp_path))


def test_a_subset_is_probed_and_marked(store: Path, tiny_model: str) -> None:
    xquad_r_folder(store / "xquad-r")
    options = ("--model", tiny_model, "--kind", "retrieval", "--data_dir", ".", "--language", "en,tr,hi")
    run = probed(*options)
    params, metrics, layers = run.data.params, run.data.metrics, table(run)
    assert (params["subset"], params["language"], params["items"], params["candidate_sentences"]) == (
        *("true", "en,hi,tr", "9", "12"),
    )
    assert metrics["chance/map20"] == pytest.approx(expected_precision(3, 12))
    assert set(layers["layer"]) == {-1, 0, 1, 2}
    at = layers[layers["layer"] == 2].set_index("measure")["value"]
    for space in ("raw", "centred"):
        by_language = [at[f"map20/{space}/{code}"] for code in ("en", "tr", "hi")]
        assert at[f"map20/{space}"] == pytest.approx(np.mean(by_language))
        assert metrics[f"headline/map20/{space}"] == at[f"map20/{space}"]
    assert "a subset of the benchmark" in run.data.tags["mlflow.note.content"]
    assert main([*options, "--pairs", "words"]) == main([*options[:-1], "en,sw"]) == 2
    assert main([*options, "--items", "4"]) == 2
    assert len(probes()) == 1
