"""What the sides work on: items of the packaged tasks, brought to the lengths of the data sets they stand for.

English XNLI (5,510 items of dev and test) has 63.3 tokens in this project's prompt with the packaged tokenizer, answer
included, with a standard deviation of 12.1; 19 of them are the instruction that all prompts begin with, and the longest
of 16 items has 86 on average. atlas-nli has 48 and 6. So further words of the task follow the premise until the
length is one of XNLI's: a quantile of them, so that 32 items already have the lengths of many. XNLI's dev and test
items come in threes with one premise, and so do those to score.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.items import NliItem, QaItem

MEAN, DEVIATION, SHORTEST, LONGEST = 63.3, 12.1, 38, 110
"""Of XNLI's lengths in tokens."""
QUANTILES = 32
"""Of these lengths, each of which one item in so many has."""
HYPOTHESES = 3
"""Of each premise in XNLI's dev and test items."""
OWN = 5
"""Tokens of the further words that stand before the hypothesis: so 22 of an XNLI item's tokens are its own, counting
what the items of the test set begin with once."""
PASSAGES = 3
"""Stories of atlas-qa, of some 60 tokens each, that make one passage: TyDi QA's are longer than one of them."""


def nli_items(encoder: Encoder, split: Split, count: int) -> list[NliItem]:
    """Return the first items of a split of atlas-nli in English, as long as XNLI's; the same ones on every call.

    To learn from, items are drawn from many, so they have a premise each. Labels of those to score are not true of a
    premise that is another item's: only answers are compared.
    """
    stories = get_task("atlas-nli").load("en", split)
    rng = random.Random(f"{split} 1")
    lengths = _lengths(rng)
    each = 1 if split == "train" else HYPOTHESES
    items: list[NliItem] = []
    premise, target = "", 0.0
    for number, story in enumerate(stories[:count]):
        assert isinstance(story, NliItem)
        item = story
        if number % each == 0:
            target = next(lengths)
            while len(encoder.example(item)) < target - OWN:
                item = replace(item, premise=f"{item.premise} {_word(stories, rng)}")
            premise = item.premise
        item = replace(item, premise=premise)
        while len(encoder.example(item)) < target:
            item = replace(item, hypothesis=f"{_word(stories, rng)} {item.hypothesis}")
        items.append(item)
    return items


def _lengths(rng: random.Random) -> Iterator[float]:
    """Give tokens of one premise's items after the other."""
    normal = NormalDist(MEAN, DEVIATION)
    while True:
        block = [normal.inv_cdf((k + 0.5) / QUANTILES) for k in range(QUANTILES)]
        rng.shuffle(block)
        yield from (min(LONGEST, max(SHORTEST, length)) for length in block)


def _word(stories: Sequence[Any], rng: random.Random) -> str:
    return str(rng.choice(rng.choice(stories).premise.split()))


def qa_items(split: Split, count: int) -> list[QaItem]:
    """Return the first items of a split of atlas-qa in English, with passages and answers as long as TyDi QA's.

    The answer is the sentence that holds it.
    """
    stories = get_task("atlas-qa").load("en", split)
    items = []
    for number, story in enumerate(stories[:count]):
        assert isinstance(story, QaItem)
        others = [getattr(stories[(number + k) % len(stories)], "context") for k in range(1, PASSAGES)]  # noqa: B009
        before = story.context[: story.answer_start]
        start = before.rfind(". ") + 2 if ". " in before else 0
        sentence = story.context[start : story.context.index(".", story.answer_start) + 1]
        context = " ".join([story.context, *others])
        items.append(replace(story, context=context, answers=(sentence,), answer_start=start))
    return items


def save(encoder: Encoder, items: Sequence[NliItem | QaItem], path: Path) -> Path:
    """Write token ids of prompts and answers, for sides that know nothing of this project's tasks."""
    encoded = [encoder.example(item) for item in items]
    path.write_text(json.dumps([{"prompt": e.prompt, "answer": e.answer} for e in encoded]))
    return path
