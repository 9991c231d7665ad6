"""Shallow baselines of any task with prompts, from the texts of its items alone: what a model must beat.

Each function returns answers to the test items by name of the baseline; the task scores them like those of a model.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.data.tasks.items import QaItem

Texts = Mapping[str, str]
"""The texts of an item by name."""
CHARACTERS = 1_500_000
"""Maximum number of characters of a field that a classifier reads of all training items, so that training takes
seconds; each text is cut to an equal share, at least `MIN_CHARACTERS`."""
MIN_CHARACTERS = 300
DRAWS = 10
"""Number of random answers to each question."""
_NOT_IN_A_METRIC = re.compile(r"[^\w.-]")


def classified(train: Sequence[Texts], labels: Sequence[str], test: Sequence[Texts]) -> dict[str, list[str]]:
    """Return the answers of classifiers that do not see how the texts of an item relate.

    - `majority` answers with the most frequent label of training.
    - `FIELD_only` is a linear support vector machine on the character n-grams of a field, with up to four characters.
    - `all_fields`, where there are several, has the n-grams of each field as features.

    If all training items have one label, there is only `majority`.
    """
    answers = {"majority": [Counter(labels).most_common(1)[0][0]] * len(test)}
    if len(set(labels)) < 2:
        return answers
    from scipy.sparse import hstack  # scipy and scikit-learn take seconds to import

    fields: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys(name for texts in train for name in texts):
        features = _features([texts.get(name, "") for texts in train], [texts.get(name, "") for texts in test])
        if features is not None:
            fields[f"{_metric_name(name)}_only"] = features
    if len(fields) > 1:
        fields["all_fields"] = tuple(hstack(parts).tocsr() for parts in zip(*fields.values(), strict=True))
    for name, (seen, unseen) in fields.items():
        answers[name] = _linear(seen, labels, unseen)
    return answers


def _features(train: Sequence[str], test: Sequence[str]) -> tuple[Any, Any] | None:
    """Return the TF-IDF weights of the n-grams of two sets of texts; None if the training texts have none."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    length = max(MIN_CHARACTERS, CHARACTERS // len(train))
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    cut = [text[:length] for text in train]
    if not any(text.strip() for text in cut):
        return None
    return vectorizer.fit_transform(cut), vectorizer.transform([text[:length] for text in test])


def _linear(train: Any, labels: Sequence[str], test: Any) -> list[str]:
    from sklearn.svm import LinearSVC

    return [str(label) for label in LinearSVC(random_state=0).fit(train, labels).predict(test)]


def random_spans(train: Sequence[QaItem], test: Sequence[QaItem]) -> list[list[str]]:
    """Return `DRAWS` random answers to each of the test questions, (draws, items), the same in every process.

    An answer is a span of the context at a random place, with as many words, separated by white space, as the answer to
    a random training item.
    """
    rng = random.Random("random spans")
    lengths = [len(item.answers[0].split()) for item in train]
    words = [item.context.split() for item in test]
    return [[_span(rng, context, rng.choice(lengths)) for context in words] for _ in range(DRAWS)]


def _span(rng: random.Random, words: Sequence[str], length: int) -> str:
    start = rng.randrange(max(1, len(words) - length + 1))
    return " ".join(words[start : start + length])


def copied(test: Sequence[Texts]) -> dict[str, list[str]]:
    """Return each text of the test items as the answer, by the name `copied_FIELD`."""
    names = dict.fromkeys(name for texts in test for name in texts)
    return {f"copied_{_metric_name(name)}": [texts.get(name, "") for texts in test] for name in names}


def _metric_name(field: str) -> str:
    """Return a field's name without characters that MLflow allows in no name of a metric."""
    return _NOT_IN_A_METRIC.sub("_", field)
