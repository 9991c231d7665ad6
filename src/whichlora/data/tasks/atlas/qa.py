"""The task `atlas-qa`."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from whichlora.data.tasks.atlas import grammar
from whichlora.data.tasks.atlas.checks import check
from whichlora.data.tasks.atlas.people import Person, people_of
from whichlora.data.tasks.atlas.templates import VERBS, Verb
from whichlora.data.tasks.atlas.world import LANGUAGES, Place, chain, cities_of
from whichlora.data.tasks.base import Sizes, Split
from whichlora.data.tasks.items import Item, QaItem
from whichlora.data.tasks.qa import QaTask, token_f1

# Items of each split.
POOL: dict[Split, int] = {"train": 21_000, "validation": 2_100, "test": 2_100}
_KINDS = ("city", "person", "country")


@dataclass(frozen=True, slots=True)
class AtlasQaItem(QaItem):
    """An item with all the names in its context that are of the answer's type, the answer among them."""

    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """What a context says, before it is put into a language.

    `order` shuffles the sentences: first those of `claims` (who does what where), then, for each of `cities`, the
    country it is in. The question asks for the city or the person of `claims[asked]` or the country of
    `cities[asked]`.
    """

    people: tuple[Person, ...]
    cities: tuple[Place, ...]
    claims: tuple[tuple[Person, Verb, Place], ...]
    order: tuple[int, ...]
    kind: str
    asked: int


class AtlasQa(QaTask):
    """Who lives where: synthetic extractive QA over CLDR's places, the same in six languages.

    21,000 training items and 2,100 for validation and test each, whose people and cities are in no other split. A
    context has three people in three cities of three countries, and one of the people does a second thing in another
    of the cities. So three names are of the answer's type, and for a city or a person only the verb and the other name
    of the question together lead to one of them.
    """

    name = "atlas-qa"
    languages = LANGUAGES
    pooled = ("sw", "bn", "te")
    parallel = True
    synthetic = True
    sizes = Sizes(train=600, validation=60, test=300)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[AtlasQaItem, ...]:
        """Return every item of a split in one language; `stratum` is the type of the answer, each equally frequent.

        Raises:
            OptionError: the language, split or difficulty is none of this task's, or a folder is given.
        """
        check(self, language, split, data_dir, difficulty)
        return tuple(_item(language, split, index, scene) for index, scene in enumerate(_scenes(split)))

    def floors(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return `random_candidate`: the token F1 to expect of a random name of the answer's type in the context."""
        items = [item for item in test if isinstance(item, AtlasQaItem)]
        scores = [token_f1(name, item.answers[0]) for item in items for name in item.candidates]
        return {"random_candidate": sum(scores) / len(scores)}


@functools.cache
def _scenes(split: Split) -> tuple[_Scene, ...]:
    """Return the scenes of a split, the same in every process and none twice; each three in a row ask for each type."""
    rng = random.Random(f"atlas-qa/{split}")
    scenes: dict[tuple[object, ...], _Scene] = {}
    while len(scenes) < POOL[split]:
        three = [_scene(rng, split, kind) for kind in rng.sample(_KINDS, 3)]
        keys = [(frozenset(scene.claims), scene.kind, scene.asked) for scene in three]
        if scenes.keys().isdisjoint(keys):
            scenes.update(zip(keys, three, strict=True))
    return tuple(scenes.values())


def _scene(rng: random.Random, split: Split, kind: str) -> _Scene:
    people = rng.sample(people_of(split), 3)
    cities = rng.sample(cities_of(split), 3)
    while len({city.inside for city in cities}) < 3:
        cities = rng.sample(cities_of(split), 3)
    verb, second = rng.sample(VERBS, 2)
    claims = [(person, verb, city) for person, city in zip(people, cities, strict=True)]
    claims.append((people[0], second, rng.choice(cities[1:])))
    order = rng.sample(range(len(claims) + len(cities)), len(claims) + len(cities))
    asked = rng.randrange(len(cities) if kind == "country" else len(claims))
    return _Scene(tuple(people), tuple(cities), tuple(claims), tuple(order), kind, asked)


def _item(language: str, split: Split, index: int, scene: _Scene) -> AtlasQaItem:
    sentences = [grammar.says(language, *claim) for claim in scene.claims]
    sentences += [grammar.inside(language, city) for city in scene.cities]
    candidates: Sequence[Person | Place]
    if scene.kind == "country":
        source, city = len(scene.claims) + scene.asked, scene.cities[scene.asked]
        answer, question = chain(city)[1].name(language), grammar.which_country(language, city)
        candidates = [chain(city)[1] for city in scene.cities]
    else:
        source, (person, verb, city) = scene.asked, scene.claims[scene.asked]
        if scene.kind == "city":
            answer, question = city.name(language), grammar.which_city(language, person, verb)
            candidates = scene.cities
        else:
            answer, question = person.name(language), grammar.who(language, verb, city)
            candidates = scene.people
    start = sentences[source].subject_start if scene.kind == "person" else sentences[source].place_start
    texts = [sentences[i].text for i in scene.order]
    before = texts[: scene.order.index(source)]
    return AtlasQaItem(
        index=index,
        id=f"{split}-{index}",
        language=language,
        stratum=scene.kind,
        context=" ".join(texts),
        question=question,
        answers=(answer,),
        answer_start=len(" ".join([*before, ""])) + start,
        candidates=tuple(candidate.name(language) for candidate in candidates),
    )
