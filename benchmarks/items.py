"""Builds the items of the benchmarks: packaged tasks, lengthened to match XNLI and TyDi QA.

The 5,510 English dev and test items of XNLI have 63.3 tokens on average (standard deviation 12.1), in this project's
prompt with the answer and the packaged tokenizer. The instruction with which all prompts begin accounts for 19 of them,
and the longest of 16 items has 86 on average. Items of atlas-nli have 48 (standard deviation 6), so words from other
items are appended to the premise until an item is as long as a quantile of XNLI's lengths; with quantiles, 32 items
already have the distribution of many. XNLI's dev and test items come in threes that share a premise, and so do the
items to score.
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
"""Mean, standard deviation, minimum and maximum of XNLI's lengths in tokens."""
QUANTILES = 32
"""Number of quantiles of the lengths; each quantile occurs once in that many items."""
HYPOTHESES_PER_PREMISE = 3
"""In XNLI's dev and test items, and so in the items to score."""
HYPOTHESIS_PADDING = 5
"""Tokens that are added before the hypothesis instead of to the premise.

This matches XNLI, where 22 tokens of an item are not in a prefix shared with other items of the test set.
"""
STORIES_PER_PASSAGE = 3
"""Number of atlas-qa stories (about 60 tokens each) per passage; TyDi QA's passages are longer than a story."""


def nli_items(encoder: Encoder, split: Split, count: int) -> list[NliItem]:
    """Return the first English items of a split of atlas-nli, lengthened to match XNLI; the same items on every call.

    Each training item has its own premise, as if drawn from many. Items to score share premises, so their labels may be
    wrong; only the answers of both sides are compared.
    """
    stories = get_task("atlas-nli").load("en", split)
    rng = random.Random(f"{split} 1")
    lengths = _lengths(rng)
    items_per_premise = 1 if split == "train" else HYPOTHESES_PER_PREMISE
    items: list[NliItem] = []
    premise, target = "", 0.0
    for number, story in enumerate(stories[:count]):
        assert isinstance(story, NliItem)
        item = story
        if number % items_per_premise == 0:
            target = next(lengths)
            while len(encoder.example(item)) < target - HYPOTHESIS_PADDING:
                item = replace(item, premise=f"{item.premise} {_word(stories, rng)}")
            premise = item.premise
        item = replace(item, premise=premise)
        while len(encoder.example(item)) < target:
            item = replace(item, hypothesis=f"{_word(stories, rng)} {item.hypothesis}")
        items.append(item)
    return items


def _lengths(rng: random.Random) -> Iterator[float]:
    """Yield the length in tokens of the items that share a premise, premise by premise."""
    normal = NormalDist(MEAN, DEVIATION)
    while True:
        block = [normal.inv_cdf((k + 0.5) / QUANTILES) for k in range(QUANTILES)]
        rng.shuffle(block)
        yield from (min(LONGEST, max(SHORTEST, length)) for length in block)


def _word(stories: Sequence[Any], rng: random.Random) -> str:
    return str(rng.choice(rng.choice(stories).premise.split()))


def qa_items(split: Split, count: int) -> list[QaItem]:
    """Return the first English items of a split of atlas-qa, with passages and answers as long as TyDi QA's.

    The answer is lengthened to the sentence that contains it.
    """
    stories = get_task("atlas-qa").load("en", split)
    items = []
    for number, story in enumerate(stories[:count]):
        assert isinstance(story, QaItem)
        others = [getattr(stories[(number + k) % len(stories)], "context") for k in range(1, STORIES_PER_PASSAGE)]  # noqa: B009
        before = story.context[: story.answer_start]
        start = before.rfind(". ") + 2 if ". " in before else 0
        sentence = story.context[start : story.context.index(".", story.answer_start) + 1]
        context = " ".join([story.context, *others])
        items.append(replace(story, context=context, answers=(sentence,), answer_start=start))
    return items


def save(encoder: Encoder, items: Sequence[NliItem | QaItem], path: Path) -> Path:
    """Write token ids of prompts and answers, for sides that do not use this project's tasks."""
    encoded = [encoder.example(item) for item in items]
    path.write_text(json.dumps([{"prompt": e.prompt, "answer": e.answer} for e in encoded]))
    return path
