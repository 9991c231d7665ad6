"""Runs that disagree or cannot be compared as they are get a caution on the first screen."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from synthetic import log_design, log_run, spec

from analysis.records import Record
from analysis.report import robustness
from analysis.runs.pull import pull
from whichlora.config.spec import SPEC_VERSION
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments


def told(experiment: str = "e") -> tuple[str, ...]:
    client = connect()
    return pull(client, find_experiments(client, experiment)).design.cautions


def test_a_complete_design_of_one_version_has_none(full):
    assert told("full") == ()


def test_a_run_that_was_repeated_with_another_score(store):
    for seed in (1, 2):
        log_run(spec(seed=seed), "e", items=0, f1={"en": 0.8, "tl": 0.6})
    log_run(spec(seed=1), "e", items=0, f1={"en": 0.8, "tl": 0.6})
    assert told() == ()  # repeated, and the same
    log_run(spec(seed=2), "e", items=0, f1={"en": 0.8, "tl": 0.65})
    (caution,) = told()
    assert caution.startswith("1 run was repeated with the same fingerprint and another score")
    assert caution.endswith("lora-matched atlas-nli en+sw 0.5 seed 2, test/tl/f1 0.6000 and 0.6500.")


def test_an_adapter_with_two_english_scores(store):
    """Runs of two languages share the adapter at ratio 0, and so its English result."""
    for language, english in (("sw", 0.8), ("ur", 0.81)):
        log_run(spec(language=language, tl_ratio=0.0), "e", items=0, f1={"en": english, "tl": 0.6})
    assert told() == ("1 adapter has several English F1 scores (points) on the same test items: 80.00 and 81.00.",)


def test_mixed_spec_versions(store):
    log_run(spec(seed=1), "e", items=0)
    with patch("whichlora.config.spec.SPEC_VERSION", 5):
        log_run(spec(seed=2), "e", items=0)
    (caution,) = told()
    assert caution.startswith(f"The runs have several spec versions (5, {SPEC_VERSION})")


@pytest.mark.parametrize(
    ("lacking", "start", "end"),
    [
        ({"arm": "matched", "variant": "vera", "seed": 3}, "Methods have different seeds, ", "seeds 1-2: VeRA)."),
        ({"language": "ur", "seed": 1}, "Blocks have different seeds, ", "seeds 2-3: ur 0%, ur 50%)."),
    ],
)
def test_seeds_that_differ(store, lacking, start, end):
    for variant in ("lora", "vera"):
        for language in ("sw", "ur"):
            for ratio in (0.0, 0.5):
                for seed in (1, 2, 3):
                    fields = {"arm": "matched", "language": language, "tl_ratio": ratio, "seed": seed}
                    if not lacking.items() <= {**fields, "variant": variant}.items():
                        log_run(spec(variant, **fields), "e", items=0)
    (caution,) = told()
    assert caution.startswith(start)
    assert caution.endswith(end)


def test_settings_with_different_seeds(store):
    log_design("e", methods=[("lora", "matched")], languages=("sw",), ratios=(0.5,), items=0)
    options = {"methods": [("lora", "matched")], "languages": ("sw",), "ratios": (0.5,), "items": 0}
    log_design("e", **options, seeds=(4, 5), fields={"train_size": 300})
    (caution,) = told()
    assert caution.startswith("Settings have different seeds")
    assert "seeds 1-3" in caution
    assert "seeds 4-5" in caution


def test_the_page_has_the_sections_and_the_first_screen_the_sentences(written: Path):
    page = (written / "report.html").read_text()
    for anchor in ("other-items", "collapsed", "aggregates", "influence"):
        assert f'<section id="{anchor}">' in page
    assert 'id="profile-tl"' in page
    first = page.partition('<h2 id="scores">')[0]
    assert "Variance of a difference in English: adapters " in first
    assert "Collapsed runs in the target language (F1 within the interval of the floor): " in first


def test_which_source_dominates():
    def shares(adapters: float, items: float, both: float) -> str:
        tests = ("variance due to adapters", "variance due to items", "variance due to adapter x item")
        records = [
            Record(outcome="tl", analysis="other items", test=test, groups=("A", "B"), effect=value)
            for test, value in zip(tests, (adapters, items, both), strict=True)
        ]
        return robustness.other_items(records, "tl")[0]

    assert shares(70, 20, 10) == (
        "Variance of a difference in the target language: adapters 70 %, test items 20 %, adapter x item 10 %; the "
        "adapters dominate, so more seeds narrow the intervals more than more test items do."
    )
    assert "test items dominate" in shares(20, 70, 10)
    assert "alike" in shares(20, 20, 60)
