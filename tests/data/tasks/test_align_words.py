"""The splits of word pairs: trained pairs and control pairs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from drawing import draw_all

from whichlora.data.tasks import get_task, pairs
from whichlora.data.tasks.align_words import HELD_OUT, casefolded_words, split_pairs
from whichlora.data.tasks.items import PairItem
from whichlora.errors import OptionError

TASK = get_task("align-words")


def words(items) -> set[str]:
    return {form for item in items for form in casefolded_words((item.word, item.translation))}


@pytest.mark.parametrize("language", pairs.LANGUAGES)
def test_control_pairs_share_no_word_with_trained_ones(language: str) -> None:
    splits = [TASK.load(language, split) for split in ("train", "validation", "test")]
    assert [len(split) for split in splits[1:]] == [HELD_OUT, HELD_OUT]
    assert len(splits[0]) >= TASK.sizes.train
    assert sum(map(len, splits)) == len(pairs.packaged(language))
    for one, two in combinations(splits, 2):
        assert not words(one) & words(two)


def test_pairs_that_share_words_stay_together() -> None:
    """Through chains of shared words, in both languages and regardless of case."""
    chain = [("red apple", "tofaa"), ("red", "Nyekundu"), ("scarlet", "nyekundu")]
    word_pairs = [*chain, *((f"word{i}", f"neno{i}") for i in range(21))]
    split_of = {position: split for split, positions in split_pairs(word_pairs).items() for position in positions}
    assert len({split_of[position] for position in range(3)}) == 1
    assert sorted(split_of) == list(range(24))
    assert {split: len(positions) for split, positions in split_pairs(word_pairs).items()} == {
        "train": 16,
        "validation": 4,
        "test": 4,
    }


def test_a_group_that_is_too_large_to_be_held_out_is_trained() -> None:
    word_pairs = [(f"big word{i}", f"neno{i}") for i in range(20)] + [(f"small{i}", f"dogo{i}") for i in range(10)]
    split = split_pairs(word_pairs)
    assert set(range(20)) <= set(split["train"])
    assert len(split["test"]) == len(split["validation"]) == 5


def test_trained_pairs_are_seeded_and_control_pairs_the_same_for_every_seed() -> None:
    options = {"language": "sw", "tl_ratio": 1, "difficulty": "normal", "data_dir": None, "select_on": "control"}
    sizes = {"train_size": 40, "validation_size": 20, "test_size": 20}
    one, again, other = (draw_all(TASK, seed=seed, **options, **sizes) for seed in (1, 1, 2))
    assert one == again
    assert one.train != other.train
    assert (one.test["control"], one.validation) == (other.test["control"], other.validation)
    more = draw_all(TASK, seed=1, **options, **sizes | {"train_size": 60})
    assert more.train[:40] == one.train


def test_own_pairs_take_the_place_of_the_packaged_ones(tmp_path: Path) -> None:
    (tmp_path / "en-sw.tsv").write_text("".join(f"word{i}\tneno{i}\n" for i in range(30)))
    own = TASK.load("sw", "train", data_dir=str(tmp_path))
    assert len(own) == 20
    assert isinstance(own[0], PairItem)
    assert own[0].word.startswith("word")
    assert TASK.load("tr", "train", data_dir=str(tmp_path)) == TASK.load("tr", "train")
    (tmp_path / "en-sw.tsv").write_text("word\n")
    with pytest.raises(OptionError, match=r"^data_dir=.*en-sw\.tsv: line 1 is not"):
        TASK.load("sw", "train", data_dir=str(tmp_path))
