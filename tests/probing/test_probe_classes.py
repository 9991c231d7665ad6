"""From detections to shares and kappa: words whose detections are known, and tables counted by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from whichlora.data.encoding import special_ids
from whichlora.errors import OptionError
from whichlora.probing.bootstrap import PoissonBootstrap
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.language.agreement import Sample, kappas, second_classifier
from whichlora.probing.language.classes import (
    DROPPED,
    ENGLISH,
    OTHER,
    TARGET,
    LanguageClassifier,
    class_shares,
)
from whichlora.probing.partial_results import PART_ITEMS, PartialResults

WORDS = ("<s>", "<tool>", "the", "ya", "children", "watu", "mtoto", "47")
BEGIN, TOOL, THE, YA, CHILDREN, WATU, MTOTO, NUMBER = range(len(WORDS))
# CLD3 takes `children` for German, `watu` for Corsican and, without trusting itself, `mtoto` for Italian. Lingua knows
# all of them among three languages.
CANDIDATES = ("en", "sw", "hi")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer with one token per word. Its file flags `<tool>` as special, but gives it no role such as BOS."""
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="47"))
    words.decoder = decoders.WordPiece()
    words.add_special_tokens(["<s>", "<tool>"])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", pad_token="<s>")


def classes(tokenizer: Any, *tokens: int, **choices: Any) -> list[int]:
    classifier = LanguageClassifier(LanguageChoices(**choices), tokenizer)
    found: list[int] = classifier.classify_tokens(np.array(tokens), "sw").tolist()
    return found


def test_each_token_has_the_class_of_its_language(tokenizer: Any) -> None:
    words = (THE, YA, CHILDREN, WATU, MTOTO, NUMBER)
    assert classes(tokenizer, *words) == [ENGLISH, TARGET, OTHER, OTHER, OTHER, OTHER]
    lingua = classes(tokenizer, *words, detector="lingua", candidates=CANDIDATES)
    assert lingua == [ENGLISH, TARGET, ENGLISH, TARGET, TARGET, DROPPED]  # a number is in none of the candidates


def test_one_detection_serves_every_target_language_and_shape(tokenizer: Any) -> None:
    classifier = LanguageClassifier(LanguageChoices(), tokenizer)
    assert classifier.classify_tokens(np.array([[YA, THE]]), "sw").tolist() == [[TARGET, ENGLISH]]
    assert classifier.classify_tokens(np.array([[THE], [YA]]), "hi").tolist() == [[ENGLISH], [OTHER]]
    assert classifier.classify_tokens(np.array([], dtype=int), "sw").tolist() == []


@pytest.mark.parametrize(("unreliable", "expected"), [("keep", OTHER), ("drop", DROPPED)])
def test_unreliable_detections_are_kept_or_dropped(tokenizer: Any, unreliable: str, expected: int) -> None:
    assert classes(tokenizer, MTOTO, unreliable=unreliable) == [expected]
    assert classes(tokenizer, THE, YA, NUMBER, unreliable=unreliable) == [ENGLISH, TARGET, OTHER]
    assert (
        LanguageClassifier(LanguageChoices(unreliable=unreliable), tokenizer).classify_text("mtoto", "sw") == expected
    )


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (None, [ENGLISH, TARGET, OTHER, OTHER]),
        (("en", "sw"), [ENGLISH, TARGET, DROPPED, DROPPED]),
        (("en", "de"), [ENGLISH, DROPPED, OTHER, DROPPED]),
    ],
)
def test_languages_other_than_the_candidates_are_dropped(tokenizer: Any, candidates: Any, expected: list[int]) -> None:
    assert classes(tokenizer, THE, YA, CHILDREN, NUMBER, candidates=candidates) == expected


def test_special_tokens_are_dropped_as_tokens_and_in_texts(tokenizer: Any) -> None:
    assert special_ids(tokenizer) == {BEGIN, TOOL}
    assert set(tokenizer.all_special_ids) == {BEGIN}  # which misses the other one
    classifier = LanguageClassifier(LanguageChoices(), tokenizer)
    found = classifier.classify_tokens(np.array([BEGIN, TOOL, YA, THE]), "sw")
    assert found.tolist() == [DROPPED, DROPPED, TARGET, ENGLISH]
    assert class_shares(found).tolist() == [0.5, 0.5, 0]
    assert classifier.decode([BEGIN, YA, TOOL]) == "ya"
    assert classifier.classify_text(classifier.decode([BEGIN, TOOL]), "sw") == DROPPED


def test_special_tokens_that_are_kept_are_classified_like_others(tokenizer: Any) -> None:
    classifier = LanguageClassifier(LanguageChoices(special_tokens="keep"), tokenizer)
    assert DROPPED not in classifier.classify_tokens(np.array([BEGIN, TOOL]), "sw")
    assert classifier.decode([BEGIN, YA]).split() == ["<s>", "ya"]


def test_shares_do_not_count_dropped_classes() -> None:
    found = class_shares(np.array([[ENGLISH, TARGET], [DROPPED, TARGET], [OTHER, DROPPED], [OTHER, OTHER]]))
    assert found.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_an_item_with_everything_dropped_has_no_share_and_is_not_in_the_mean() -> None:
    nothing = class_shares(np.array([DROPPED, DROPPED]))
    assert np.isnan(nothing).all()
    assert np.isnan(class_shares(np.array([], dtype=int))).all()
    means = PoissonBootstrap(3, seed=0)
    means.add(
        np.stack([class_shares(np.array([ENGLISH])), nothing, class_shares(np.array([ENGLISH, OTHER, OTHER, OTHER]))])
    )
    assert means.result().mean.tolist() == [0.625, 0, 0.375]  # not two thirds of it
    assert means.result().n.tolist() == [2, 2, 2]


def drawn(folder: Path, tokens: list[int], texts: list[str]) -> PartialResults:
    """Return results of two parts, each with half of these tokens and texts as its sample."""
    parts = PartialResults(folder, 2 * PART_ITEMS)
    half = len(tokens) // 2

    def part(positions: range) -> dict[str, Any]:
        chosen = slice(half) if positions.start == 0 else slice(half, None)
        return {
            "sampled_tokens": np.array(tokens[chosen]),
            "sampled_targets": np.array(["sw"] * len(tokens[chosen])),
            "sampled_texts": np.array(texts[chosen], dtype=str),
        }

    parts.fill(part, description="sample")
    return parts


def test_kappa_is_that_of_a_table_counted_by_hand(tmp_path: Path, tokenizer: Any) -> None:
    """Two tables with the classes of CLD3 in rows and those of Lingua in columns: English, target, dropped.

    Of tokens, English 5 0 0, target 0 4 0, other 3 2 6. They agree on 9 of 20, and by chance on
    (5 * 8 + 4 * 6) / 400 = .16 of them. Of texts: 8 0 0, 0 2 0, 6 0 4, which is 10 of 20, and (8 * 14 + 2 * 2) / 400.
    """
    counts = {THE: 5, YA: 4, CHILDREN: 3, WATU: 2, NUMBER: 6}
    texts = ["the"] * 8 + ["ya"] * 2 + ["children"] * 6 + ["47"] * 4
    parts = drawn(tmp_path, list(Counter(counts).elements()), texts)
    one = LanguageClassifier(LanguageChoices(), tokenizer)
    found = kappas(parts, one, LanguageClassifier(LanguageChoices(detector="lingua", candidates=CANDIDATES), tokenizer))
    assert found["kappa/token"] == pytest.approx((0.45 - 0.16) / (1 - 0.16))
    assert found["kappa/sequence"] == pytest.approx((0.5 - 0.29) / (1 - 0.29))
    assert found["kappa/n"] == 20
    assert kappas(parts, one, one) == {"kappa/token": 1, "kappa/sequence": 1, "kappa/n": 20}


def test_kappa_is_undefined_if_both_give_only_one_class(tmp_path: Path, tokenizer: Any) -> None:
    classifier = LanguageClassifier(LanguageChoices(), tokenizer)
    found = kappas(drawn(tmp_path, [THE, THE], ["the", "the"]), classifier, classifier)
    assert np.isnan([found["kappa/token"], found["kappa/sequence"]]).all()
    assert found["kappa/n"] == 2


def test_the_second_classifier_has_the_other_detector_and_the_same_candidates(tokenizer: Any) -> None:
    found = [
        second_classifier(LanguageChoices(detector=name, candidates=CANDIDATES), tokenizer)
        for name in ("cld3", "lingua")
    ]
    assert [classifier and classifier.classify_text("watu", "sw") for classifier in found] == [
        TARGET,
        DROPPED,
    ]  # Corsican is no candidate
    assert second_classifier(LanguageChoices(agreement=0), tokenizer) is None
    with pytest.raises(OptionError, match=r"^candidates=en,xx"):
        second_classifier(LanguageChoices(candidates=("en", "xx")), tokenizer)


@pytest.mark.parametrize(("count", "items", "expected"), [(20, 10, 20), (25, 10, 30), (10, 40, 10), (30, 40, 20)])
def test_a_sample_is_spread_over_the_items_and_the_same_in_any_chunks(count: int, items: int, expected: int) -> None:
    tokens = np.arange(6 * items).reshape(items, 2, 3, 1)

    def taken(*portions: range) -> list[list[Any]]:
        columns: dict[str, list[Any]] = {}
        for portion in portions:
            sample = Sample(count, items, seed=3)
            for index in portion:
                sample.draw(index, "sw", tokens[index], [f"{index} low", f"{index} high"])
            for name, values in sample.arrays().items():
                columns.setdefault(name, []).extend(values.tolist())
        return list(columns.values())

    found = taken(range(items))
    assert found == taken(range(3), range(3, 7), range(7, items))
    assert len(found[0]) == expected
    assert {len(column) for column in found} == {expected}
    from_tokens, from_texts = ([token // 6 for token in found[0]], [int(text.split()[0]) for text in found[2]])
    assert from_tokens == from_texts
