"""The task `atlas-nli`: synthetic natural language inference."""

from __future__ import annotations

from whichlora.data.tasks.atlas import grammar
from whichlora.data.tasks.atlas.checks import check
from whichlora.data.tasks.atlas.stories import Claim, Story, stories
from whichlora.data.tasks.atlas.world import LANGUAGES
from whichlora.data.tasks.base import Sizes, Split
from whichlora.data.tasks.items import NliItem
from whichlora.data.tasks.nli import NliTask


class AtlasNli(NliTask):
    """Synthetic NLI about who lives where, over CLDR's places, with parallel items in six languages.

    There are 21,000 training items and 2,100 each for validation and test; the people and cities of a split are in no
    other split. The three labels are equally frequent, also among the negated hypotheses, which are a tenth of all.

    The difficulty `normal` has lexical cues, as real NLI data does: a place, person or verb of the hypothesis is
    missing from the premise. `shallow_baselines` returns the score reached by counting such words; knowing which word
    is missing scores higher. `hard` has two people and two cities in every premise and no such cue; it is meant for
    models larger than the default one, which stays at chance.
    """

    name = "atlas-nli"
    languages = LANGUAGES
    pooled = ("ur", "sw", "hi")
    parallel = True
    synthetic = True
    difficulties = ("normal", "hard")
    sizes = Sizes(train=600, validation=60, test=300)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[NliItem, ...]:
        """Return all items of a split in one language, in an order in which every prefix has balanced labels.

        Raises:
            OptionError: the task has no such language, split or difficulty, or `data_dir` is set.
        """
        check(self, language, split, data_dir, difficulty)
        return tuple(_item(language, split, index, story) for index, story in enumerate(stories(split, difficulty)))


def _item(language: str, split: Split, index: int, story: Story) -> NliItem:
    premise = [_claim(language, claim) for claim in story.claims]
    premise += [grammar.inside(language, place).text for place in story.located]
    return NliItem(
        index=index,
        id=f"{split}-{index}",
        language=language,
        stratum=story.label,
        premise=" ".join(premise),
        hypothesis=_claim(language, story.hypothesis),
        label=story.label,
    )


def _claim(language: str, claim: Claim) -> str:
    return grammar.says(language, claim.person, claim.verb, claim.place, negated=claim.negated).text
