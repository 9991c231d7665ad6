"""The packaged tasks: their documented properties, checked on the texts in all six languages."""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import resources

import pytest

from whichlora.data.tasks.atlas import AtlasNli, AtlasQa, grammar
from whichlora.data.tasks.atlas.people import people, people_of
from whichlora.data.tasks.atlas.world import LANGUAGES, Place, chain, cities, cities_of
from whichlora.data.tasks.base import SPLITS, Split
from whichlora.data.tasks.items import LABELS, NliItem
from whichlora.data.tasks.shallow_baselines import has_negation, words_of
from whichlora.errors import OptionError

NLI, QA = AtlasNli(), AtlasQa()
DIFFICULTIES = NLI.difficulties
POOL = {"train": 21_000, "validation": 2_100, "test": 2_100}
each_language = pytest.mark.parametrize("language", LANGUAGES)
each_difficulty = pytest.mark.parametrize("difficulty", DIFFICULTIES)


@pytest.fixture(scope="module", autouse=True)
def without_garbage_collection():
    """Disable garbage collection, which would scan some 400,000 items repeatedly."""
    gc.disable()
    yield
    gc.enable()


@functools.cache
def nli(language: str, split: Split, difficulty: str = "normal"):
    return NLI.load(language, split, difficulty=difficulty)


@functools.cache
def qa(language: str, split: Split):
    return QA.load(language, split)


@functools.cache
def places() -> dict[str, Place]:
    return {place.name("en"): place for city in cities() for place in chain(city)}


def names(split: Split, language: str) -> set[str]:
    return {x.name(language) for x in (*people_of(split), *cities_of(split))}


# The world.


def test_splits_have_enough_people_and_cities_and_share_none():
    assert [len(people_of(split)) for split in SPLITS] == [24, 7, 17]
    assert all(len(cities_of(split)) >= least for split, least in zip(SPLITS, (80, 20, 50), strict=True))
    assert sum(len(cities_of(split)) for split in SPLITS) == len(cities())
    assert {person.gender for split in SPLITS for person in people_of(split)} == {"f", "m"}
    for split in SPLITS:
        assert Counter(person.gender for person in people_of(split)).most_common()[-1][1] >= 3


@each_language
def test_a_name_belongs_to_one_person_or_place(language):
    used = Counter(x.name(language) for x in (*people(), *places().values()))
    assert all(used)
    assert max(used.values()) == 1
    place_words = {word for place in places().values() for word in place.name(language).split()}
    assert place_words.isdisjoint(person.name(language) for person in people())


def test_left_out_places_are_left_out():
    territories = {chain(city)[1].key for city in cities()}
    assert territories.isdisjoint({"IL", "TW", "CY", "GE", "GF", "PR", "GL"})
    assert {city.key for city in cities()}.isdisjoint({"Europe/Simferopol", "Asia/Vladivostok", "Pacific/Honolulu"})
    assert {"Africa/Nairobi", "Asia/Dhaka", "Asia/Karachi"} <= {city.key for city in cities()}


def test_the_licence_of_the_containment_table_is_packaged():
    notice = (
        resources.files("whichlora.data.tasks.atlas").joinpath("LICENSE-Unicode-3.0.txt").read_text(encoding="utf-8")
    )
    assert "UNICODE LICENSE V3" in notice
    assert "Permission is hereby granted" in notice


# Both tasks.


@pytest.mark.parametrize("task", [NLI, QA], ids=lambda task: task.name)
def test_what_load_refuses(task):
    with pytest.raises(OptionError, match="language=fr: allowed are en, ur, sw, hi, bn, te"):
        task.load("fr", "test")
    with pytest.raises(OptionError, match="split=dev"):
        task.load("en", "dev")
    with pytest.raises(OptionError, match="difficulty=hrad: allowed are"):
        task.load("en", "test", difficulty="hrad")
    with pytest.raises(OptionError, match="data_dir=here: atlas tasks are packaged and take no folder"):
        task.load("en", "test", data_dir="here")


@each_language
@pytest.mark.parametrize("split", SPLITS)
def test_pools_are_full_numbered_and_parallel(language, split):
    pools = [(nli(language, split, d), nli("en", split, d)) for d in DIFFICULTIES]
    for items, english in [*pools, (qa(language, split), qa("en", split))]:
        assert len(items) == POOL[split]
        assert [item.index for item in items] == list(range(len(items)))
        assert {item.language for item in items} == {language}
        assert [(item.id, item.stratum) for item in items] == [(item.id, item.stratum) for item in english]
        assert len({item.id for item in items}) == len(items)


@each_language
def test_people_and_cities_of_a_split_are_named_in_no_other(language):
    for split in SPLITS:
        texts = {f"{i.premise} {i.hypothesis}" for d in DIFFICULTIES for i in nli(language, split, d)}
        texts |= {f"{i.context} {i.question}" for i in qa(language, split)}
        sentences = {sentence for text in texts for sentence in re.split(r"(?<=[.۔।?؟]) ", text)}
        words = [re.sub("[.۔।?؟]", "", sentence).split() for sentence in sentences]
        said = {" ".join(w[i : i + n]) for w in words for i in range(len(w)) for n in (1, 2)}
        assert names(split, language) <= said
        for other in set(SPLITS) - {split}:
            assert said.isdisjoint(names(other, language))


def test_another_process_with_another_hash_seed_loads_the_same():
    code = (
        "import hashlib; from whichlora.data.tasks.atlas import AtlasNli, AtlasQa\n"
        "items = [*AtlasNli().load('bn', 'test'), *AtlasNli().load('ur', 'test', difficulty='hard')]\n"
        "print(hashlib.sha256(repr([*items, *AtlasQa().load('te', 'test')]).encode()).hexdigest())"
    )
    env = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    items = [*nli("bn", "test"), *nli("ur", "test", "hard"), *qa("te", "test")]
    assert run.stdout.strip() == hashlib.sha256(repr(items).encode()).hexdigest()


# atlas-nli.


@each_difficulty
@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced_in_the_pool_and_in_every_prefix(split, difficulty):
    items = nli("en", split, difficulty)
    for start in range(0, len(items), 3):
        assert {item.label for item in items[start : start + 3]} == set(LABELS)
    assert all(item.stratum == item.label for item in items)


@each_language
@each_difficulty
@pytest.mark.parametrize("split", SPLITS)
def test_hypotheses_say_nothing_of_the_label(language, split, difficulty):
    items = nli(language, split, difficulty)
    by_label = [Counter(i.hypothesis for i in items if i.label == label) for label in LABELS]
    assert by_label[0] == by_label[1] == by_label[2]
    # The same holds for negation, as detected by the word list, in a large and a small sample.
    for sample in (items[:2_100], items[:300]):
        negated = Counter(i.label for i in sample if has_negation(i.hypothesis, language))
        assert [negated[label] for label in LABELS] == [len(sample) // 30] * 3
    assert not any(has_negation(i.premise, language) for i in items[:2_100])


@each_language
@each_difficulty
def test_no_item_twice_and_no_test_hypothesis_in_training(language, difficulty):
    for split in SPLITS:
        pairs = [(item.premise, item.hypothesis) for item in nli(language, split, difficulty)]
        assert len(set(pairs)) == len(pairs)
    seen = {item.hypothesis for item in nli(language, "train", difficulty)}
    assert seen.isdisjoint(item.hypothesis for item in nli(language, "test", difficulty))


VERB = {"lives": "live", "works": "work", "studies": "study", "was born": "born"}
CLAIM = re.compile(
    r"(\w+) (?:(lives|works|studies|was born)|(?:does|was) (not) (live|work|study|born)) in (?:the )?(\w+)"
)
INSIDE = re.compile(r"(?:The )?(\w+) is in (?:the )?(\w+)")


def judge(item: NliItem) -> str:
    """Derive the label again from the English text and the containment of places."""
    does: dict[tuple[str, str], Place] = {}
    inside: dict[str, str] = {}
    for sentence in item.premise.rstrip(".").split(". "):
        if claim := CLAIM.fullmatch(sentence):
            does[claim[1], VERB[claim[2]]] = places()[claim[5]]
        else:
            located = INSIDE.fullmatch(sentence)
            inside[located[1]] = located[2]
            assert places()[located[1]].inside is places()[located[2]]
    claim = CLAIM.fullmatch(item.hypothesis.rstrip("."))
    where = does.get((claim[1], claim[4] or VERB[claim[2]]))
    asked = places()[claim[5]]
    if where is None:
        return "neutral"
    wider, stated = where, where.name("en")
    while wider is not asked and wider.inside is not None:
        wider, stated = wider.inside, inside.get(stated)
    if wider is asked:
        assert stated == asked.name("en"), "it follows only from what is not stated"
        return "contradiction" if claim[3] else "entailment"
    while asked is not where and asked.inside is not None:
        asked = asked.inside
    if asked is where:
        return "neutral"
    return "entailment" if claim[3] else "contradiction"


@each_difficulty
@pytest.mark.parametrize("split", SPLITS)
def test_labels_follow_from_the_text(split, difficulty):
    assert all(judge(item) == item.label for item in nli("en", split, difficulty))


def test_each_label_has_each_kind_of_place_and_premise_equally_often():
    levels: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    starts: dict[str, Counter[str]] = {label: Counter() for label in LABELS}
    items = nli("en", "train")
    for item in items:
        levels[item.label][places()[item.hypothesis.rstrip(".").split()[-1]].level] += 1
        starts[item.label][places()[item.premise.split(".")[0].split()[-1]].level] += 1
    assert levels["entailment"] == levels["neutral"] == levels["contradiction"]
    for label in LABELS:
        assert all(n / 7_000 == pytest.approx(1 / 3, abs=0.02) for n in levels[label].values())
        assert starts[label]["country"] / 7_000 == pytest.approx(1 / 3, abs=0.02)


@each_language
def test_in_hard_items_every_premise_names_all_that_its_hypothesis_names(language):
    for item in nli(language, "test", "hard"):
        if not has_negation(item.hypothesis, language):
            assert set(words_of(item.hypothesis)) <= set(words_of(item.premise))


@each_language
def test_default_items_lack_one_word_whether_place_or_person_is_another(language):
    def lacking(label: str) -> Counter[int]:
        items = [i for i in nli(language, "test") if i.label == label and not has_negation(i.hypothesis, language)]
        return Counter(len(set(words_of(i.hypothesis)) - set(words_of(i.premise)) - {"the"}) for i in items)

    assert lacking("entailment") == {0: 630}
    for label in ("neutral", "contradiction"):
        assert lacking(label)[1] > 480


@each_difficulty
@pytest.mark.parametrize(("language", "pinned"), [("en", 0.68), ("sw", 0.71)])
def test_shallow_floors_of_the_usual_sample(language, difficulty, pinned):
    half = NLI.sizes.train // 2
    train = [*nli("en", "train", difficulty)[:half], *nli("sw", "train", difficulty)[half : 2 * half]]
    floors = NLI.shallow_baselines(train, nli(language, "test", difficulty))
    assert floors["majority"] == pytest.approx(1 / 3)
    assert floors["hypothesis_only"] == pytest.approx(1 / 3, abs=0.04)
    assert floors["overlap"] == pytest.approx(1 / 3 if difficulty == "hard" else pinned, abs=0.03)


@each_difficulty
@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"en", "sw"}))
def test_shallow_floors_of_other_languages(language, difficulty):
    floors = NLI.shallow_baselines(nli(language, "train", difficulty)[:600], nli(language, "test", difficulty)[:1200])
    assert floors["hypothesis_only"] == pytest.approx(1 / 3, abs=0.04)
    assert floors["overlap"] == pytest.approx(1 / 3 if difficulty == "hard" else 0.70, abs=0.05)


# atlas-qa.


@each_language
@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_spans_among_three_candidates(language, split):
    items = qa(language, split)
    for item in items:
        (answer,) = item.answers
        assert item.context[item.answer_start : item.answer_start + len(answer)] == answer
        assert len(set(item.candidates)) == 3
        assert answer in item.candidates
        assert all(name in item.context for name in item.candidates)
        assert answer not in item.question.split()
    texts = [(item.context, item.question) for item in items]
    assert len(set(texts)) == len(texts)
    assert QA.shallow_baselines(items[:1000], items[:300])["random_candidate"] == pytest.approx(1 / 3, abs=0.03)


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_balanced_by_type_and_spread_over_the_context(split):
    items = qa("en", split)
    for start in range(0, len(items), 3):
        assert {item.stratum for item in items[start : start + 3]} == {"city", "person", "country"}
    sentence = Counter(item.context[: item.answer_start].count(".") for item in items)
    assert all(n / len(items) == pytest.approx(1 / 7, abs=0.03) for n in sentence.values())


@pytest.mark.parametrize("split", SPLITS)
def test_the_answer_is_the_only_one_the_text_gives(split):
    for item in qa("en", split):
        claims = [CLAIM.fullmatch(s) for s in item.context.rstrip(".").split(". ")]
        said = [(c[1], VERB[c[2]], c[5]) for c in claims if c]
        inside = dict(INSIDE.fullmatch(s).groups() for s in item.context.rstrip(".").split(". ") if " is in " in s)
        if match := re.fullmatch(r"Which city (?:does|was) (\w+) (\w+) in\?", item.question):
            found = [city for person, verb, city in said if (person, verb) == match.groups()]
        elif match := re.fullmatch(r"Who (lives|works|studies|was born) in (\w+)\?", item.question):
            found = [person for person, verb, city in said if (verb, city) == (VERB[match[1]], match[2])]
        else:
            found = [inside[re.fullmatch(r"Which country is (\w+) in\?", item.question)[1]]]
        assert found == list(item.answers)


# Grammar: forms that are easy to get wrong, written out.


@pytest.mark.parametrize(
    ("language", "person", "verb", "place", "negated", "text"),
    [
        ("en", "Asha", "live", "NL", False, "Asha lives in the Netherlands."),
        ("en", "Asha", "born", "PH", True, "Asha was not born in the Philippines."),
        ("sw", "Ali", "live", "KE", True, "Ali haishi nchini Kenya."),
        ("sw", "Ali", "born", "002", True, "Ali hakuzaliwa barani Afrika."),
        ("hi", "Asha", "live", "KE", False, "आशा केन्या में रहती है।"),
        ("hi", "Ali", "study", "KE", True, "अली केन्या में नहीं पढ़ता।"),
        ("ur", "Asha", "work", "KE", False, "آشا کینیا میں کام کرتی ہے۔"),
        ("ur", "Ali", "live", "KE", True, "علی کینیا میں نہیں رہتا۔"),
        ("bn", "Ali", "live", "BD", False, "আলী বাংলাদেশে থাকেন।"),
        ("bn", "Asha", "born", "KE", True, "আশা কেনিয়া দেশে জন্মগ্রহণ করেননি।"),
        ("te", "Asha", "work", "142", True, "ఆశా ఆసియా ఖండంలో పని చేయడం లేదు."),
    ],
)
def test_sentences(language, person, verb, place, negated, text):
    who = next(p for p in people() if p.key == person)
    where = next(found for found in places().values() if found.key == place)
    assert grammar.says(language, who, verb, where, negated=negated).text == text


def test_places_begin_a_sentence_with_a_capital():
    city = next(city for city in cities() if chain(city)[1].key == "NL")
    assert grammar.inside("en", chain(city)[1]).text == "The Netherlands is in Europe."
    assert grammar.inside("sw", city).text == "Amsterdam iko nchini Uholanzi."
