"""What the items of `atlas-nli` say, before it is put into a language.

A hypothesis is drawn first, and then a premise for each of the three labels. So every hypothesis of a split has every
label equally often, and reading it alone tells nothing.
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

# Items of each split: a multiple of a block, which is ten hypotheses, one of them negated, under three labels each.
POOL: dict[Split, int] = {"train": 21_000, "validation": 2_100, "test": 2_100}
_BLOCK = 10

# The verbs that are one word in every language, but for auxiliaries that both have. Only these are exchanged for one
# another in `_normal`: any other exchange would show in the number of words.
_ONE_WORD: tuple[Verb, ...] = ("live", "study")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Claim:
    """A person does something (`verb`) at a place, or does not."""

    person: Person
    verb: Verb
    place: Place
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """The premise says `claims`, and that each of `located` is in the next wider place; then the hypothesis."""

    claims: tuple[Claim, ...]
    located: tuple[Place, ...]
    hypothesis: Claim
    label: str


_Premise = tuple[tuple[Claim, ...], tuple[Place, ...]]


@functools.cache
def stories(split: Split, difficulty: str) -> tuple[Story, ...]:
    """Return the stories of a split: the same in every process, and without any story twice.

    Each three in a row have one hypothesis and the three labels; each thirty in a row hold three with a negated one.
    """
    draw = _hard if difficulty == "hard" else _normal
    rng = random.Random(f"atlas-nli/{difficulty}/{split}")
    told: list[Story] = []
    seen: set[tuple[object, ...]] = set()
    while len(told) < POOL[split]:
        negated_one = rng.randrange(_BLOCK)
        for i in range(_BLOCK):
            while True:
                three = draw(rng, split, negated=i == negated_one)
                keys = [(frozenset(s.claims), frozenset(s.located), s.hypothesis) for s in three]
                if seen.isdisjoint(keys):
                    break
            seen.update(keys)
            told += rng.sample(three, 3)
    return tuple(told)


def _normal(rng: random.Random, split: Split, *, negated: bool) -> list[Story]:
    """One person and one chain of places, stated as far as the hypothesis needs it.

    The lexical cue that stays, as real NLI data has it: a place that the premise does not name makes a contradiction,
    a person or verb that it does not name a neutral. Both lack one word, so that counting words does not tell them
    apart. One neutral in six names nothing new: who lives in Kenya may or may not live in Nairobi.
    """
    hypothesis = Claim(rng.choice(people_of(split)), rng.choice(VERBS), _place(rng, split, LEVELS), negated)
    person, verb, place = hypothesis.person, hypothesis.verb, hypothesis.place
    city = rng.choice(_cities_in(split, place))
    elsewhere = rng.choice(_cities_outside(split, chain(city)[2]))
    # The first sentence places the person in a city (0) or only in a country (1): the latter in a third of each label.
    start = int(place.level != "city" and rng.random() < 1 / 2)
    # A city needs no further sentence. Half of those items have one all the same, as a wider place always brings one.
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
            verb = _other(rng, verb, _ONE_WORD)
        else:
            person = _other(rng, person, _alike(split, person))
        silent = (Claim(person, verb, chain(city)[start]),), chain(city)[start:end]
    return _labelled(hypothesis, holds, silent, fails)


def _hard(rng: random.Random, split: Split, *, negated: bool) -> list[Story]:
    """Two people, two verbs and two cities, so that every premise names all that its hypothesis names.

    Only who does what where tells the labels apart. The order of the sentences is random.
    """
    hypothesis = Claim(rng.choice(people_of(split)), rng.choice(VERBS), _place(rng, split, LEVELS[:2]), negated)
    person, verb = hypothesis.person, hypothesis.verb
    premises: list[_Premise] = []
    for truth in ("holds", "silent", "fails"):
        here = rng.choice(_cities_in(split, hypothesis.place))
        there = rng.choice(_cities_outside(split, chain(here)[1]))
        other, another = _other(rng, person, _alike(split, person)), _other(rng, verb, VERBS)
        pairs = [(person, another), (other, verb)] if truth == "silent" else [(person, verb), (other, another)]
        swapped = truth == "fails" or (truth == "silent" and rng.random() < 1 / 2)
        places = (there, here) if swapped else (here, there)
        claims = [Claim(*pair, place) for pair, place in zip(pairs, places, strict=True)]
        premises.append((tuple(rng.sample(claims, 2)), tuple(rng.sample(places, 2))))
    return _labelled(hypothesis, *premises)


def _labelled(hypothesis: Claim, holds: _Premise, silent: _Premise, fails: _Premise) -> list[Story]:
    """Return the stories of premises under which the hypothesis, were it not negated, is true, open and false."""
    labels = LABELS[::-1] if hypothesis.negated else LABELS
    return [Story(*premise, hypothesis, label) for premise, label in zip((holds, silent, fails), labels, strict=True)]


def _place(rng: random.Random, split: Split, levels: Sequence[Level]) -> Place:
    return chain(rng.choice(cities_of(split)))[LEVELS.index(rng.choice(levels))]


def _other(rng: random.Random, one: _T, several: Sequence[_T]) -> _T:
    return rng.choice([x for x in several if x != one])


@functools.cache
def _alike(split: Split, person: Person) -> tuple[Person, ...]:
    """Return the people of a person's gender: the verb forms of Hindi and Urdu would give another one away."""
    return tuple(other for other in people_of(split) if other.gender == person.gender)


@functools.cache
def _cities_in(split: Split, place: Place) -> tuple[Place, ...]:
    return tuple(city for city in cities_of(split) if place in chain(city))


@functools.cache
def _cities_outside(split: Split, place: Place) -> tuple[Place, ...]:
    return tuple(city for city in cities_of(split) if place not in chain(city))
