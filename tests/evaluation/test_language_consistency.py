"""Whether generated answers are in the language that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from whichlora.data.encoding import Encoder
from whichlora.data.general_text import LANGUAGES, general_texts
from whichlora.data.tasks import get_task
from whichlora.evaluation.language_consistency import MIN_LETTERS, in_language
from whichlora.evaluation.scores import score
from whichlora.evaluation.scoring_methods import Generation, Predictions

ENGLISH = "All human beings are born free and equal in dignity and rights."
SWAHILI = "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa."


class Given(Generation):
    """Answers what it is given."""

    def __init__(self, answers: list[str]) -> None:
        object.__setattr__(self, "answers", answers)

    def predict(self, model: Any, encoder: Encoder, items: Any, *, name: str) -> Predictions:
        return Predictions(predicted=list(self.answers))  # type: ignore[attr-defined]


class _Model:
    training = False

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...


def scores_of(answers: list[str], language: str = "sw") -> dict[str, float]:
    task = get_task("atlas-qa")
    items = task.load(language, "test")[: len(answers)]
    encoder = Encoder(task, None)  # type: ignore[arg-type]
    return score(_Model(), encoder, items, scoring=Given(answers), name="test").metrics


def test_only_long_answers_count() -> None:
    metrics = scores_of([SWAHILI, ENGLISH, SWAHILI, "Nairobi", ""])
    assert metrics["language_consistency"] == pytest.approx(2 / 3)
    assert metrics["language_consistency_answers"] == 3
    metrics = scores_of(["Nairobi", "47 %", "Watu wote"])
    assert metrics["language_consistency_answers"] == 0
    assert "language_consistency" not in metrics


def test_a_label_is_no_answer_in_a_language() -> None:
    task = get_task("atlas-nli")
    items = task.load("sw", "test")[:2]
    given = Given([task.labels[0]] * 2)
    metrics = score(_Model(), Encoder(task, None), items, scoring=given, name="test").metrics  # type: ignore[arg-type]
    assert not any(name.startswith("language_consistency") for name in metrics)


def test_each_text_is_compared_with_its_own_language() -> None:
    wanted = ["en", "sw", "swh_Latn", "sw", "en", "tt", "sw"]
    texts = [ENGLISH, SWAHILI, SWAHILI, ENGLISH, None, SWAHILI, "Watu wote wamezaliwa, 1234567890"]
    np.testing.assert_array_equal(in_language(texts, wanted), [1, 1, 1, 0, np.nan, np.nan, np.nan])


def test_articles_are_found_in_every_language_that_cld3_knows_and_no_other_counts() -> None:
    texts = general_texts("forgetting", f"udhr:{','.join(LANGUAGES)}", ())
    shares = {}
    for code, text in texts.items():
        values = in_language(text.blocks, [code] * len(text.blocks))
        shares[code] = np.nan if np.isnan(values).all() else np.nanmean(values)
    assert {code for code, share in shares.items() if np.isnan(share)} == {"tt", "tk", "ug"}
    assert min(share for share in shares.values() if not np.isnan(share)) > 0.95
    assert MIN_LETTERS == 30
