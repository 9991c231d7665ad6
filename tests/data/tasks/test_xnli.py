"""The splits of XNLI, with and without a train file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import folders
import pytest
from drawing import draw_all

from whichlora.data.tasks import get_task
from whichlora.data.tasks.xnli import HELD_OUT
from whichlora.errors import OptionError

XNLI = get_task("xnli")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return folders.xnli_folder(tmp_path_factory.mktemp("xnli"))


def mixture(data: str, **changes):
    values = {"language": "sw", "tl_ratio": 0.5, "train_size": 40, "validation_size": 9, "test_size": 12, "seed": 1}
    return draw_all(XNLI, difficulty="normal", data_dir=data, **(values | changes))


def test_the_sizes_of_the_paper():
    assert (XNLI.sizes.train, XNLI.sizes.validation, XNLI.sizes.test) == (5000, 500, 5010)
    assert len(XNLI.languages) == 15


def test_without_a_train_file_validation_is_held_out_of_dev_for_all_languages(data):
    for language in XNLI.languages:
        train, validation, test = (XNLI.load(language, s, data_dir=data) for s in ("train", "validation", "test"))
        assert (len(train), len(validation), len(test)) == (80, 40, 30)
        assert {i.id for i in train} | {i.id for i in validation} == {f"validation-{n}" for n in range(120)}
        assert [i.id for i in validation] == [i.id for i in XNLI.load("en", "validation", data_dir=data)]
        assert all(12 <= n <= 14 for n in Counter(i.label for i in validation).values())
        assert len({i.stratum for i in train}) == 6


def test_the_hypotheses_of_a_premise_stay_together_in_every_language(tmp_path):
    labels = folders.LABELS
    for language, word in (("en", "premise"), ("sw", "dhana")):
        # As in the data: 830 premises with three hypotheses each; some premises have one translation.
        rows = [
            {
                "premise": f"{word} {n // 3 // (5 if word == 'dhana' else 1)}",
                "hypothesis": f"{n}",
                "label": labels[n % 3],
            }
            for n in range(2490)
        ]
        folders.write(tmp_path / f"dev-{language}.tsv", rows)
    for language in ("en", "sw"):
        train, validation = (XNLI.load(language, s, data_dir=str(tmp_path)) for s in ("train", "validation"))
        assert (len(train), len(validation), HELD_OUT) == (1989, 501, 500)
        premises = [{int(item.id.removeprefix("validation-")) // 3 for item in part} for part in (train, validation)]
        assert premises[0].isdisjoint(premises[1])
        assert set(Counter(item.label for item in validation).values()) == {167}


@pytest.mark.parametrize("seed", range(3))
def test_no_translation_of_a_validation_item_is_trained_on(data, seed):
    drawn = mixture(data, seed=seed, train_size=80, validation_size=40)
    chosen = {i.id for items in drawn.validation.values() for i in items}
    assert len(chosen) == 40
    assert not chosen & {i.id for i in drawn.train}
    assert len({i.id for i in drawn.train}) == 80


def test_with_dev_as_the_pool_the_usual_size_is_too_great(data):
    with pytest.raises(OptionError, match=r"^train_size=5000: xnli has 80 train items in en$"):
        mixture(data, train_size=5000)


def with_train(folder: Path, *languages: str) -> str:
    folders.xnli_folder(folder)
    for language in languages:
        folders.write(folder / f"train-{language}.tsv", folders.xnli_rows(language, "train", 60))
    return str(folder)


def test_with_a_train_file_dev_is_validation(tmp_path):
    data = with_train(tmp_path, "en", "sw")
    assert [len(XNLI.load("sw", s, data_dir=data)) for s in ("train", "validation", "test")] == [60, 120, 30]
    drawn = mixture(data, validation_size=120)
    assert all(i.id.startswith("train-") for i in drawn.train)
    assert all(i.id.startswith("validation-") for i in drawn.validation["tl"])


def test_where_only_english_has_a_train_file_no_other_language_trains_on_dev(tmp_path):
    data = with_train(tmp_path, "en")
    assert XNLI.load("sw", "train", data_dir=data) == ()
    assert len(XNLI.load("sw", "validation", data_dir=data)) == 120
    assert len(mixture(data, tl_ratio=0.0).train) == 40
    with pytest.raises(OptionError, match=r"^tl_ratio=0.5: xnli has no sw items to train on; allowed is 0$"):
        mixture(data)


@pytest.mark.parametrize("broken", ["labels", "lines", "genres"])
def test_files_that_are_not_parallel_are_refused(tmp_path, broken):
    data = folders.xnli_folder(tmp_path)
    rows = folders.xnli_rows("sw", "validation", 120)
    if broken == "labels":
        rows[7], rows[8] = rows[8], rows[7]
    rows = rows[:-1] if broken == "lines" else rows
    if broken == "genres":
        rows = [{k: v for k, v in row.items() if k != "genre"} for row in rows]
    folders.write(tmp_path / "dev-sw.tsv", rows)
    with pytest.raises(OptionError, match=rf"^data_dir={data}: the languages are not parallel: .* in en pairs with "):
        mixture(data)


def test_the_word_of_the_translated_training_files_is_a_contradiction(tmp_path):
    (tmp_path / "test-en.tsv").write_text("a\tb\tcontradictory\n")
    assert XNLI.load("en", "test", data_dir=str(tmp_path))[0].label == "contradiction"
