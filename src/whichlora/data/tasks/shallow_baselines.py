"""Shallow classifiers that no model should be praised for reaching, shown beside every NLI score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from whichlora.data.tasks.items import LABELS, NliItem

# Words, with the combining marks that Python's \w leaves out in the Indic scripts.
_WORD = re.compile(r"(?:[^\W_]|[\u0900-\u0963\u0966-\u0dff\u064b-\u0670\u200c\u200d’'])+")

# Words that negate. Swahili negates by a verb's prefix, which a few nouns begin with too; names begin with a capital.
_NEGATION = {
    "en": re.compile(r"(?i:not|no|never|none|nobody|nothing|nowhere|neither|nor|cannot|\w+n['’]t)"),
    "ur": re.compile(r"نہیں|نہ|نا|مت|بغیر"),
    "sw": re.compile(r"(?:ha|hu|si)\w{3,}|si|bila|kamwe"),
    "hi": re.compile(r"नहीं|न|ना|मत|बिना"),
    "bn": re.compile(r"না|নি|নয়|নেই|নাই|.+(?:ে|েন|য়)নি"),
    "te": re.compile(r".*(?:లేదు|కాదు|లేరు|లేడు|వద్దు)"),
}


def nli_floors(train: Sequence[NliItem], test: Sequence[NliItem]) -> dict[str, float]:
    """Return the micro-F1 on `test` of three classifiers trained on the items the model trained on.

    - `majority` gives the most frequent label of `train`.
    - `hypothesis_only` never sees the premise: logistic regression on the hypothesis's words, word pairs and
      characters (Poliak et al. 2018, "Hypothesis Only Baselines in Natural Language Inference").
    - `overlap` sees no word as such, only how many words the hypothesis shares with the premise, whether either has a
      negation, the lengths in words and the language: boosted trees, which find the interactions themselves (in the
      spirit of the heuristics of McCoy et al. 2019, "Right for the Wrong Reasons"). Lengths in letters are left out:
      where a task has few names they amount to the words themselves.

    Args:
        train: items of one or several languages. With one label among them there is nothing but `majority`.
        test: items of one language.
    """
    true, given = [item.label for item in train], [item.label for item in test]
    if len(set(true)) < 2:
        return {"majority": _accuracy([true[0]] * len(given), given)}
    majority = max(LABELS, key=Counter(true).__getitem__)
    words = make_union(
        TfidfVectorizer(token_pattern=_WORD.pattern, ngram_range=(1, 2)),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)),
    )
    hypothesis_only = make_pipeline(words, LogisticRegression(max_iter=300))
    hypothesis_only.fit([item.hypothesis for item in train], true)
    languages = sorted({item.language for item in train})
    overlap = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0)
    overlap.fit(np.stack([_overlap(item, languages) for item in train]), true)
    return {
        "majority": _accuracy([majority] * len(given), given),
        "hypothesis_only": _accuracy(hypothesis_only.predict([item.hypothesis for item in test]), given),
        "overlap": _accuracy(overlap.predict(np.stack([_overlap(item, languages) for item in test])), given),
    }


def _overlap(item: NliItem, languages: Sequence[str]) -> NDArray[np.float64]:
    """Return the overlap features of an item; shape (9 + len(languages),)."""
    premise, hypothesis = words_of(item.premise), words_of(item.hypothesis)
    known = set(premise)
    missing = [word for word in hypothesis if word not in known]
    # A negative verb form is a new word of its own: counting stems as well lets "live" match "lives".
    stems = {word[:4] for word in premise}
    missing_stems = [word for word in hypothesis if word[:4] not in stems]
    negated = negation(item.hypothesis, item.language)
    values = [
        len(missing),
        len(missing) / max(len(hypothesis), 1),
        len(missing_stems),
        len(missing_stems) / max(len(hypothesis), 1),
        len(known & set(hypothesis)) / max(len(known | set(hypothesis)), 1),
        float(negated),
        float(negated != negation(item.premise, item.language)),
        len(hypothesis),
        len(premise),
    ]
    return np.array(values + [float(item.language == language) for language in languages])


def words_of(text: str) -> list[str]:
    """Return the words of a text in any of the languages, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def negation(text: str, language: str) -> bool:
    """Say whether a word of the text negates, from a short list per language; False in a language without a list."""
    pattern = _NEGATION.get(language)
    return pattern is not None and any(pattern.fullmatch(word) for word in _WORD.findall(text))


def _accuracy(predicted: Sequence[str] | NDArray[np.str_], true: Sequence[str]) -> float:
    return float(np.mean(np.asarray(predicted) == np.asarray(true)))
