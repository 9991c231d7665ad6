"""The task `atlas-qa`: synthetic extractive question answering."""

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

# Items per split.
POOL: dict[Split, int] = {"train": 21_000, "validation": 2_100, "test": 2_100}
_KINDS = ("city", "person", "country")


@dataclass(frozen=True, slots=True)
class AtlasQaItem(QaItem):
    """A QA item with all names of the answer's type in its context, including the answer."""

    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """The content of a context and its question, independent of the language.

    There is one sentence per claim (who does what where), followed by one per city that states its country; `order` is
    the permutation of these sentences in the context. Depending on `kind`, the question asks for the city or the person
    of `claims[target]`, or for the country of `cities[target]`.
    """

    people: tuple[Person, ...]
    cities: tuple[Place, ...]
    claims: tuple[tuple[Person, Verb, Place], ...]
    order: tuple[int, ...]
    kind: str
    target: int


class AtlasQa(QaTask):
    """Synthetic extractive QA about who lives where, over CLDR's places, with parallel items in six languages.

    There are 21,000 training items and 2,100 each for validation and test; the people and cities of a split are in no
    other split. A context has three people in three cities of three countries, and one of the people has a second verb
    in another of the cities. So there are three candidates of the answer's type, and a question for a city or a person
    can be answered only from both the verb and the name in the question.
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
        """Return all items of a split in one language; `stratum` is the answer's type, each equally frequent.

        Raises:
            OptionError: the task has no such language, split or difficulty, or `data_dir` is set.
        """
        check(self, language, split, data_dir, difficulty)
        return tuple(_item(language, split, index, scene) for index, scene in enumerate(_scenes(split)))

    def shallow_baselines(self, train: Sequence[Item], test: Sequence[Item]) -> dict[str, float]:
        """Return `random_candidate`, the expected token F1 of a random name of the answer's type from the context."""
        items = [item for item in test if isinstance(item, AtlasQaItem)]
        scores = [token_f1(name, item.answers[0]) for item in items for name in item.candidates]
        return {"random_candidate": sum(scores) / len(scores)}


@functools.cache
def _scenes(split: Split) -> tuple[_Scene, ...]:
    """Return distinct scenes of a split, the same in every process, in triples that ask for one answer of each type."""
    rng = random.Random(f"atlas-qa/{split}")
    scenes: dict[tuple[object, ...], _Scene] = {}
    while len(scenes) < POOL[split]:
        triple = [_scene(rng, split, kind) for kind in rng.sample(_KINDS, 3)]
        keys = [(frozenset(scene.claims), scene.kind, scene.target) for scene in triple]
        if scenes.keys().isdisjoint(keys):
            scenes.update(zip(keys, triple, strict=True))
    return tuple(scenes.values())


def _scene(rng: random.Random, split: Split, kind: str) -> _Scene:
    people = rng.sample(people_of(split), 3)
    cities = rng.sample(cities_of(split), 3)
    while len({city.inside for city in cities}) < 3:
        cities = rng.sample(cities_of(split), 3)
    verb, second_verb = rng.sample(VERBS, 2)
    claims = [(person, verb, city) for person, city in zip(people, cities, strict=True)]
    claims.append((people[0], second_verb, rng.choice(cities[1:])))
    order = rng.sample(range(len(claims) + len(cities)), len(claims) + len(cities))
    target = rng.randrange(len(cities) if kind == "country" else len(claims))
    return _Scene(tuple(people), tuple(cities), tuple(claims), tuple(order), kind, target)


def _item(language: str, split: Split, index: int, scene: _Scene) -> AtlasQaItem:
    sentences = [grammar.says(language, *claim) for claim in scene.claims]
    sentences += [grammar.inside(language, city) for city in scene.cities]
    candidates: Sequence[Person | Place]
    if scene.kind == "country":
        source, city = len(scene.claims) + scene.target, scene.cities[scene.target]
        answer, question = chain(city)[1].name(language), grammar.which_country(language, city)
        candidates = [chain(city)[1] for city in scene.cities]
    else:
        source, (person, verb, city) = scene.target, scene.claims[scene.target]
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
