"""Writes sentences and questions about people and places, with the character offsets of the names."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from whichlora.data.tasks.atlas import templates
from whichlora.data.tasks.atlas.people import Person
from whichlora.data.tasks.atlas.templates import Verb
from whichlora.data.tasks.atlas.world import Place

_SLOT = re.compile(r"\{(\w)\}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with the character offsets of its subject (a person, or the contained place) and its place.

    An offset is -1 if the sentence does not contain that name.
    """

    text: str
    subject_start: int
    place_start: int


@functools.cache
def says(language: str, person: Person, verb: Verb, place: Place, *, negated: bool = False) -> Sentence:
    """Return the sentence "PERSON lives in PLACE" for a verb, or its negation."""
    return _fill(language, templates.SAYS[language][verb][negated], person, place)


@functools.cache
def inside(language: str, place: Place) -> Sentence:
    """Return the sentence "PLACE is in ..." with the place that contains it; `place` is a city or a country."""
    return _fill(language, templates.INSIDE[language], place, place.inside)


def which_city(language: str, person: Person, verb: Verb) -> str:
    """Return the question "Which city does PERSON live in?" for a verb."""
    return _fill(language, templates.WHICH_CITY[language][verb], person, None).text


def who(language: str, verb: Verb, place: Place) -> str:
    """Return the question "Who lives in PLACE?" for a verb."""
    return _fill(language, templates.WHO[language][verb], None, place).text


def which_country(language: str, city: Place) -> str:
    """Return the question "Which country is CITY in?"."""
    return _fill(language, templates.WHICH_COUNTRY[language], city, None).text


def _fill(language: str, template: str, subject: Person | Place | None, place: Place | None) -> Sentence:
    text, subject_start, place_start = "", -1, -1
    # `split` by a pattern with one group returns plain text and slots in alternation.
    for i, piece in enumerate(_SLOT.split(template)):
        if i % 2 == 0:
            text += piece
        elif piece == "g" and isinstance(subject, Person):
            text += templates.ENDING[language][subject.gender]
        elif piece == "x" and place is not None:
            before, after = _where(language, place)
            place_start = len(text + before)
            text += before + place.name(language) + after
        elif subject is not None:
            text += _article(subject.name(language)) if language == "en" else ""
            subject_start = len(text)
            text += subject.name(language)
    return Sentence(text[0].upper() + text[1:], subject_start, place_start)


def _where(language: str, place: Place) -> tuple[str, str]:
    """Return the text before and after the name of a place in the locative case."""
    name = place.name(language)
    if language == "en":
        return _article(name), ""
    if language == "bn" and name.endswith("দেশ"):
        return "", "ে"  # the name already contains the noun for "country": বাংলাদেশে
    before, _, after = templates.WHERE.get(language, {}).get(place.level, "{n}").partition("{n}")
    return before, after


def _article(name: str) -> str:
    return "the " if name in templates.ENGLISH_ARTICLE else ""
