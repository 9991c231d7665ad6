"""Reports name the languages and the metric of the runs, and work without a source language."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import folders
import pytest
from runs import plan_of, run_of
from synthetic import log_design

from analysis import analyze

GERMAN = {"source_language": "de", "target_languages": "tr", "headline": "f1"}
ALONE = {"source_language": "none", "target_languages": "tr", "headline": "f1"}
EFFECTS = {"vera": -0.15}


def report_of(experiment: str, *more: str) -> str:
    assert analyze.main(["--experiment", experiment, "--output", "out", *more]) == 0
    page = Path("out/report.html").read_text()
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = page[: page.index('<h2 id="claims">')] + page[page.index('<h2 id="layers">') :]  # claims are the paper's own
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def design(name: str, names: dict[str, str], **options: object) -> None:
    options = {"languages": ("tr",), "fields": {"task": "reviews"}, "effects": EFFECTS, "names": names, **options}
    log_design(name, **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_report_names_the_source_and_the_target(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design("german", GERMAN)
    text = report_of("german")
    assert "English" not in text, text[text.index("English") - 200 : text.index("English") + 50]
    assert "F1, German" in text
    assert "F1, Turkish" in text
    assert "Retention of German" in text
    assert "German F1 minus that at ratio 0" in text
    assert "German and Turkish are tested separately" in text
    told = capsys.readouterr().out
    assert "In Turkish " in told
    assert "In German " in told
    table = Path("out/tables/f1.md").read_text()
    assert "F1 in points, German / Turkish, by share" in table


@pytest.mark.slow
def test_the_headline_metric_is_compared_and_named(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design("macro", {**GERMAN, "headline": "macro_f1"})
    text = report_of("macro")
    assert "macro F1, Turkish" in text
    assert "Macro F1 and cost" in text
    shown = text[text.index("Scores and costs") : text.rindex("Design and exclusions")]
    assert not re.search(r".{60}(?<!macro )(?<!Macro )\bF1\b.{20}", shown)
    records = json.loads(Path("out/statistics.json").read_text())
    means = {r["groups"][0]: r["effect"] for r in records if r["test"] == "mean F1" and r["outcome"] == "tl"}
    assert means["LoRA"] - means["VeRA"] == pytest.approx(15, abs=3)  # their F1 is the same


@pytest.mark.slow
def test_a_study_in_one_language_has_one_column(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design("alone", ALONE, ratios=(1.0,))
    text = report_of("alone")
    assert "English" not in text, text[text.index("English") - 200 : text.index("English") + 50]
    assert "source language" not in text
    assert "Retention" not in text
    assert "Transfer gap" not in text
    assert "F1, Turkish" in text
    assert "VeRA" in capsys.readouterr().out
    records = json.loads(Path("out/statistics.json").read_text())
    assert {r["outcome"] for r in records if "claim" not in r["analysis"]} == {"", "tl"}
    again = Path("out/results.csv").rename("theirs.csv")
    assert analyze.main(["--results", str(again), "--output", "again"]) == 0
    assert "F1, Turkish" in Path("again/report.html").read_text()
    capsys.readouterr()
    for primary in ("en", "mean"):
        assert analyze.main(["--experiment", "alone", "--primary", primary]) == 2
        assert (
            capsys.readouterr()
            .err.strip()
            .endswith(f"primary={primary}: the runs have no source language; allowed is tl")
        )


@pytest.mark.slow
def test_sources_and_metrics_are_settings_of_their_own(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    design("mixed", GERMAN)
    design("mixed", {**GERMAN, "source_language": "en"}, fields={"task": "reviews", "prompt_version": "2"})
    design("mixed", {**GERMAN, "headline": "macro_f1"}, fields={"task": "reviews", "prompt_version": "3"})
    design("mixed", ALONE, fields={"task": "alone"}, ratios=(1.0,))
    text = report_of("mixed")
    settings = {
        "reviews, smollm2-135m, source de, metric f1",
        "reviews, smollm2-135m, source en",
        "reviews, smollm2-135m, source de, metric macro_f1",
        "alone, smollm2-135m",
    }
    assert all(setting in text for setting in settings)
    assert "score, source" in text
    assert "4 settings" in text


@pytest.mark.slow
def test_runs_that_name_no_language_are_from_english(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log_design("older", effects=EFFECTS)
    text = report_of("older")
    assert "F1, English" in text
    assert "F1, target" in text


@pytest.mark.parametrize("source", ["de", pytest.param(None, marks=pytest.mark.slow)])
def test_from_a_declared_task_to_its_report(
    store: Path, tiny_model: str, source: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    languages = ("de", "tr", "az") if source else ("tr", "az")
    task = folders.reviews_task(store / "data", *languages, **({"source": source} if source else {}))
    for variant in ("lora", "vera"):
        for seed in (1, 2):
            run_of(plan_of(tiny_model, task=task, language="tr,az", variant=variant, seed=seed), "reviews")
    capsys.readouterr()
    text = report_of("reviews")
    assert "English" not in text, text[text.index("English") - 200 : text.index("English") + 50]
    assert "F1, Turkish and Azerbaijani" in text
    assert ("F1, German" in text) == (source is not None)
