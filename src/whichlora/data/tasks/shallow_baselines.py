"""Shallow classifiers for NLI: baselines that a model must beat, reported next to its scores."""

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

# Words, including the combining marks of Indic scripts that Python's \w does not match.
_WORD = re.compile(r"(?:[^\W_]|[\u0900-\u0963\u0966-\u0dff\u064b-\u0670\u200c\u200d’'])+")

# Negation words; Swahili's verb prefixes also match a few nouns, but not names, which are capitalised.
_NEGATION = {
    "en": re.compile(r"(?i:not|no|never|none|nobody|nothing|nowhere|neither|nor|cannot|\w+n['’]t)"),
    "ur": re.compile(r"نہیں|نہ|نا|مت|بغیر"),
    "sw": re.compile(r"(?:ha|hu|si)\w{3,}|si|bila|kamwe"),
    "hi": re.compile(r"नहीं|न|ना|मत|बिना"),
    "bn": re.compile(r"না|নি|নয়|নেই|নাই|.+(?:ে|েন|য়)নি"),
    "te": re.compile(r".*(?:లేదు|కాదు|లేరు|లేడు|వద్దు)"),
}


def nli_baselines(train: Sequence[NliItem], test: Sequence[NliItem]) -> dict[str, float]:
    """Return the micro-F1 on `test` of three classifiers trained on the same items as the model.

    - `majority` predicts the most frequent label of `train`.
    - `hypothesis_only` does not see the premise: logistic regression on words, word bigrams and character n-grams of
      the hypothesis (Poliak et al. 2018, "Hypothesis Only Baselines in Natural Language Inference").
    - `overlap` does not see words, only the word overlap of hypothesis and premise, negation in either, the lengths in
      words and the language: gradient boosted trees, which learn the interactions (in the spirit of the heuristics of
      McCoy et al. 2019, "Right for the Wrong Reasons"). Lengths in characters are not used, because they would identify
      the words of a task with few names.

    Args:
        train: items of one or several languages. If they have only one label, only `majority` is returned.
        test: items of one language.
    """
    train_labels, test_labels = [item.label for item in train], [item.label for item in test]
    if len(set(train_labels)) < 2:
        return {"majority": _accuracy([train_labels[0]] * len(test_labels), test_labels)}
    majority = max(LABELS, key=Counter(train_labels).__getitem__)
    words = make_union(
        TfidfVectorizer(token_pattern=_WORD.pattern, ngram_range=(1, 2)),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)),
    )
    hypothesis_only = make_pipeline(words, LogisticRegression(max_iter=300))
    hypothesis_only.fit([item.hypothesis for item in train], train_labels)
    languages = sorted({item.language for item in train})
    overlap = GradientBoostingClassifier(n_estimators=60, max_depth=3, random_state=0)
    overlap.fit(np.stack([_overlap(item, languages) for item in train]), train_labels)
    return {
        "majority": _accuracy([majority] * len(test_labels), test_labels),
        "hypothesis_only": _accuracy(hypothesis_only.predict([item.hypothesis for item in test]), test_labels),
        "overlap": _accuracy(overlap.predict(np.stack([_overlap(item, languages) for item in test])), test_labels),
    }


def _overlap(item: NliItem, languages: Sequence[str]) -> NDArray[np.float64]:
    """Return the overlap features of an item; shape (9 + len(languages),)."""
    premise, hypothesis = words_of(item.premise), words_of(item.hypothesis)
    premise_words = set(premise)
    missing = [word for word in hypothesis if word not in premise_words]
    # Stems let "live" match "lives", because a negated verb has another form.
    stems = {word[:4] for word in premise}
    missing_stems = [word for word in hypothesis if word[:4] not in stems]
    is_negated = has_negation(item.hypothesis, item.language)
    values = [
        len(missing),
        len(missing) / max(len(hypothesis), 1),
        len(missing_stems),
        len(missing_stems) / max(len(hypothesis), 1),
        len(premise_words & set(hypothesis)) / max(len(premise_words | set(hypothesis)), 1),
        float(is_negated),
        float(is_negated != has_negation(item.premise, item.language)),
        len(hypothesis),
        len(premise),
    ]
    return np.array(values + [float(item.language == language) for language in languages])


def words_of(text: str) -> list[str]:
    """Return the words of a text in any language, in lower case."""
    return [word.lower() for word in _WORD.findall(text)]


def has_negation(text: str, language: str) -> bool:
    """Return whether the text contains a word of the language's negation list; False for a language without a list."""
    pattern = _NEGATION.get(language)
    return pattern is not None and any(pattern.fullmatch(word) for word in _WORD.findall(text))


def _accuracy(predicted: Sequence[str] | NDArray[np.str_], true: Sequence[str]) -> float:
    return float(np.mean(np.asarray(predicted) == np.asarray(true)))
