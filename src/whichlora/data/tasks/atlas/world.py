"""The places of the atlas: cities in countries in continents, with their CLDR names in six languages.

Names come from the CLDR data in Babel; cities are the exemplar cities of time zones. The continent of each country
comes from `containment.json`, CLDR's territory containment as `{territory: [subregion, continent]}`, under the Unicode
License v3 in `LICENSE-Unicode-3.0.txt`.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from babel.core import Locale, get_global

from whichlora.data.tasks.atlas.splits import split_of
from whichlora.data.tasks.base import Split

LANGUAGES = ("en", "ur", "sw", "hi", "bn", "te")
Level = Literal["city", "country", "continent"]
LEVELS: tuple[Level, ...] = ("city", "country", "continent")

# Areas (first part of the time zone's name) by continent. Cities in other areas are excluded because geography and
# their state place them on different continents (Vladivostok, Ceuta, Honolulu, Istanbul): "not in Asia" would be
# neither true nor false.
_AREAS = {"002": ("Africa", "Indian"), "019": ("America",), "142": ("Asia",), "150": ("Europe", "Atlantic")}
_AREAS["009"] = ("Pacific", "Australia")

# Zones named after an island or a state rather than a city, and Simferopol, whose country is disputed.
_NOT_CITIES = frozenset(
    {"America/Bahia", "America/Noronha", "Atlantic/Azores", "Atlantic/Canary", "Atlantic/Madeira", "Europe/Simferopol"}
    | {"Australia/Lindeman", "Indian/Comoro", "Indian/Mahe", "Pacific/Bougainville", "Pacific/Chatham", "Pacific/Efate"}
    | {"Pacific/Kanton", "Pacific/Kiritimati", "Pacific/Kosrae", "Pacific/Tarawa", "Pacific/Tongatapu"}
)

# Countries whose continent (Armenia, Azerbaijan, Cyprus, Georgia), capital or statehood is disputed.
_DISPUTED = frozenset({"AM", "AZ", "CY", "EH", "GE", "IL", "TW", "XK"})

# Dependent territories: "lives in Cayenne" neither entails nor contradicts "lives in France".
_DEPENDENT = frozenset(
    {"AI", "AS", "AW", "BL", "BM", "BQ", "CW", "GF", "GG", "GI", "GL", "GP", "GU", "HK", "IM", "JE", "MF", "MO", "MQ"}
    | {"MS", "NC", "NU", "PF", "PR", "RE", "SH", "SX", "TK", "YT"}
)

# Names are excluded if they contain digits, punctuation, or the Arabic letters of a few Urdu names (Kaliningrad). Names
# in Latin script must be one word, so that the number of unmatched words does not distinguish an unmatched place from
# an unmatched person. Other scripts write some names as two words; excluding these would cost a tenth of the cities.
_AWKWARD = re.compile(r"[\d()\[\],&/.’'‘–-]|[\u064a\u0643]|[A-Za-z] ")


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A city, a country or a continent; `inside` is the place that contains it, None for a continent.

    There is one object per place, so places compare by identity.
    """

    key: str
    level: Level
    names: Mapping[str, str]
    inside: Place | None

    def name(self, language: str) -> str:
        """Return the name as CLDR writes it in `language`."""
        return self.names[language]


def chain(city: Place) -> tuple[Place, Place, Place]:
    """Return a city, its country and its continent."""
    country = city.inside
    assert country is not None
    assert country.inside is not None
    return city, country, country.inside


@functools.cache
def cities() -> tuple[Place, ...]:
    """Return all cities, in the order of their time zones.

    A city is included only if its name and those of its country and continent are plain in all six languages and
    unique in each language.
    """
    text = resources.files("whichlora.data.tasks.atlas").joinpath("containment.json").read_text(encoding="utf-8")
    continents = {territory: continent for territory, (_, continent) in json.loads(text).items()}
    candidates = []
    for zone, territory in sorted(get_global("zone_territories").items()):
        continent = continents.get(territory, "")
        if zone in _NOT_CITIES or territory in _DISPUTED | _DEPENDENT:
            continue
        if zone.count("/") == 1 and zone.split("/")[0] in _AREAS.get(continent, ()):
            city = Place(zone, "city", _city_names(zone), _country(territory, continent))
            if all(name and not _AWKWARD.search(name) for place in chain(city) for name in place.names.values()):
                candidates.append(city)
    # A name shared by two places, such as a city and its country, would make sentences ambiguous.
    places = {place for city in candidates for place in chain(city)}
    counts = Counter(entry for place in places for entry in place.names.items())
    return tuple(
        city for city in candidates if all(counts[entry] == 1 for place in chain(city) for entry in place.names.items())
    )


@functools.cache
def cities_of(split: Split) -> tuple[Place, ...]:
    """Return the cities of one split. Countries and continents are in every split."""
    return tuple(city for city in cities() if split_of("city", city.key) == split)


@functools.cache
def _country(code: str, continent: str) -> Place:
    return Place(code, "country", _territory_names(code), _continent(continent))


@functools.cache
def _continent(code: str) -> Place:
    return Place(code, "continent", _territory_names(code), None)


@functools.cache
def _locale(language: str) -> Locale:
    return Locale(language)


def _territory_names(code: str) -> dict[str, str]:
    return {language: _clean(_locale(language).territories.get(code)) for language in LANGUAGES}


def _city_names(zone: str) -> dict[str, str]:
    # CLDR omits a city that equals the last part of the zone's name; only languages in Latin script can use that part.
    fallback = {"en": zone.split("/")[1].replace("_", " ")}
    fallback["sw"] = fallback["en"]
    return {
        language: _clean(_locale(language).time_zones.get(zone, {}).get("city") or fallback.get(language))
        for language in LANGUAGES
    }


def _clean(name: str | None) -> str:
    return (name or "").strip("\u200c\u200d\u200e\u200f ")
