"""Draws the content of `atlas-nli` items, independent of the language.

Each hypothesis is drawn first, then one premise for each of the three labels. So every hypothesis of a split occurs
equally often with each label, and a hypothesis-only classifier stays at chance.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from whichlora.data.tasks.atlas.people import Person, people_of
from whichlora.data.tasks.atlas.templates import VERBS, Verb
from whichlora.data.tasks.atlas.world import LEVELS, Level, Place, chain, cities_of
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.items import LABELS

# Items per split, a multiple of a block: ten hypotheses, one of them negated, with three labels each.
POOL: dict[Split, int] = {"train": 21_000, "validation": 2_100, "test": 2_100}
_BLOCK = 10

# The verbs that are one word in every language, apart from shared auxiliaries, so that `_normal` can exchange them
# without changing the number of words.
_ONE_WORD: tuple[Verb, ...] = ("live", "study")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """The statement that a person does something (`verb`) at a place, or does not."""

    person: Person
    verb: Verb
    place: Place
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """A premise and a hypothesis with their label.

    The premise states `claims`, and for each place in `located` which place contains it.
    """

    claims: tuple[Claim, ...]
    located: tuple[Place, ...]
    hypothesis: Claim
    label: str


_Premise = tuple[tuple[Claim, ...], tuple[Place, ...]]


@functools.cache
def stories(split: Split, difficulty: str) -> tuple[Story, ...]:
    """Return the stories of a split, the same in every process and without duplicates.

    They come in triples that share a hypothesis and have the three labels, and in blocks of ten triples of which one
    has a negated hypothesis.
    """
    draw = _hard if difficulty == "hard" else _normal
    rng = random.Random(f"atlas-nli/{difficulty}/{split}")
    result: list[Story] = []
    seen: set[tuple[object, ...]] = set()
    while len(result) < POOL[split]:
        negated_index = rng.randrange(_BLOCK)
        for i in range(_BLOCK):
            while True:
                triple = draw(rng, split, negated=i == negated_index)
                keys = [(frozenset(s.claims), frozenset(s.located), s.hypothesis) for s in triple]
                if seen.isdisjoint(keys):
                    break
            seen.update(keys)
            result += rng.sample(triple, 3)
    return tuple(result)


def _normal(rng: random.Random, split: Split, *, negated: bool) -> list[Story]:
    """Draw stories about one person and one chain of places, of which the premise states what the hypothesis requires.

    They have a lexical cue, as real NLI data does: in a contradiction the premise lacks the hypothesis's place, in a
    neutral item its person or verb. One word is missing in both cases, so that counting words does not separate the
    two labels. In one neutral item in six no word is missing: a person who lives in Kenya may or may not live in
    Nairobi.
    """
    hypothesis = Claim(rng.choice(people_of(split)), rng.choice(VERBS), _place(rng, split, LEVELS), negated)
    person, verb, place = hypothesis.person, hypothesis.verb, hypothesis.place
    city = rng.choice(_cities_in(split, place))
    elsewhere = rng.choice(_cities_outside(split, chain(city)[2]))
    # The first sentence places the person in a city (0) or, in a third of the items of each label, in a country (1).
    start = int(place.level != "city" and rng.random() < 1 / 2)
    # Items about a city need no second sentence, but half of them get one, because wider places always require one.
    end = max(LEVELS.index(place.level), int(rng.random() < 1 / 2))
    holds = (Claim(person, verb, chain(city)[start]),), chain(city)[start:end]
    fails = (Claim(person, verb, chain(elsewhere)[start]),), chain(elsewhere)[start:end]

    city = rng.choice(_cities_in(split, place))
    silent: _Premise
    if place.level == "city" and end == 1:
        silent = (Claim(person, verb, chain(city)[1]),), chain(city)[:1]
    else:
        start = int(place.level != "city" and rng.random() < 1 / 4)
        if verb in _ONE_WORD and rng.random() < 1 / 3:
            verb = _choose_other(rng, verb, _ONE_WORD)
        else:
            person = _choose_other(rng, person, _people_of_same_gender(split, person))
        silent = (Claim(person, verb, chain(city)[start]),), chain(city)[start:end]
    return _labelled(hypothesis, holds, silent, fails)


def _hard(rng: random.Random, split: Split, *, negated: bool) -> list[Story]:
    """Draw stories about two people, two verbs and two cities: every premise contains all names of its hypothesis.

    The label depends only on who does what where. The order of the sentences is random.
    """
    hypothesis = Claim(rng.choice(people_of(split)), rng.choice(VERBS), _place(rng, split, LEVELS[:2]), negated)
    person, verb = hypothesis.person, hypothesis.verb
    premises: list[_Premise] = []
    for truth in ("holds", "silent", "fails"):
        here = rng.choice(_cities_in(split, hypothesis.place))
        there = rng.choice(_cities_outside(split, chain(here)[1]))
        other_person = _choose_other(rng, person, _people_of_same_gender(split, person))
        other_verb = _choose_other(rng, verb, VERBS)
        crossed, straight = [(person, other_verb), (other_person, verb)], [(person, verb), (other_person, other_verb)]
        pairs = crossed if truth == "silent" else straight
        swapped = truth == "fails" or (truth == "silent" and rng.random() < 1 / 2)
        places = (there, here) if swapped else (here, there)
        claims = [Claim(*pair, place) for pair, place in zip(pairs, places, strict=True)]
        premises.append((tuple(rng.sample(claims, 2)), tuple(rng.sample(places, 2))))
    return _labelled(hypothesis, *premises)


def _labelled(hypothesis: Claim, holds: _Premise, silent: _Premise, fails: _Premise) -> list[Story]:
    """Return labelled stories for premises by which the hypothesis without its negation is true, open and false."""
    labels = LABELS[::-1] if hypothesis.negated else LABELS
    return [Story(*premise, hypothesis, label) for premise, label in zip((holds, silent, fails), labels, strict=True)]


def _place(rng: random.Random, split: Split, levels: Sequence[Level]) -> Place:
    return chain(rng.choice(cities_of(split)))[LEVELS.index(rng.choice(levels))]


def _choose_other(rng: random.Random, excluded: _T, choices: Sequence[_T]) -> _T:
    return rng.choice([x for x in choices if x != excluded])


@functools.cache
def _people_of_same_gender(split: Split, person: Person) -> tuple[Person, ...]:
    """Return the people of a person's gender; Hindi and Urdu verb forms would reveal an exchange for another gender."""
    return tuple(other for other in people_of(split) if other.gender == person.gender)


@functools.cache
def _cities_in(split: Split, place: Place) -> tuple[Place, ...]:
    return tuple(city for city in cities_of(split) if place in chain(city))


@functools.cache
def _cities_outside(split: Split, place: Place) -> tuple[Place, ...]:
    return tuple(city for city in cities_of(split) if place not in chain(city))
