"""The report answers on its first screen, in words that follow from its records."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import sqlite3
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import designs
import numpy as np
import pandas as pd
import pytest
from synthetic import log_design, log_run, spec

from analysis import analyze
from analysis.claims.claims import PACKAGED, load
from analysis.evidence import headline
from analysis.records import Record
from analysis.report import sentences
from analysis.stats.differences import PAIR_TESTS
from whichlora.tracking.client import connect, experiment_id


def report_of(experiment: str, *more: str) -> Path:
    assert analyze.main(["--experiment", experiment, "--output", "out", *more]) == 0
    return Path("out")


def text_of(folder: Path) -> str:
    page = (folder / "report.html").read_text()
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    page = re.sub(r'<code>[0-9a-f]{32}</code>|aria-label="[^"]*"', " ", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def test_the_known_truth_is_told_first(written):
    text = text_of(written)
    assert "36 runs with 27 adapters: 3 methods, 2 target languages, 2 ratios, 3 seeds." in text
    for language in ("English", "the target language"):
        first = (
            rf"In {language} 2 of 3 pairs of methods differ on these languages and ratios \(error: seeds\): .* > VeRA"
        )
        assert re.search(first, text)
    assert "On other languages and ratios like these (error: how differences vary between them), " in text
    assert "Synthetic data (atlas-nli)" in text
    assert "Few test items (60 in the smallest test set)" in text
    assert "The design is complete: every method with a result has every language, ratio and seed." in text


def test_every_number_of_the_first_screen_is_in_the_statistics(written):
    """Sentences say nothing that no record says."""
    page = (written / "report.html").read_text()
    first = re.sub(
        r"<svg.*?</svg>", " ", page[page.index("<header>") : page.index('<h2 id="scores">')], flags=re.DOTALL
    )
    told = re.findall(r"(?<![\w.])\d(?:[\d,]*\d)?(?:\.\d+)?|(?<![\w\d])\.\d+", re.sub(r"<[^>]+>", " ", first))
    known = {"1", "80", "95", "05", ".05", ".001"}  # margin, power, confidence
    for record in json.loads((written / "statistics.json").read_text()):
        values = [record["effect"], record["statistic"], record["p"], record["p_adjusted"], record["n"]]
        for value in [*values, *(record["df"] or ()), *(record["interval"] or ())]:
            if value is not None:
                for form in ("{:.1f}", "{:.2f}", "{:.3f}", "{:,.0f}", "{:,.2f}", "{:g}"):
                    known.add(form.format(abs(value)).removeprefix("0") or "0")
                    known.add(form.format(abs(value)))
    assert [number for number in told if number not in known] == []


def test_every_number_of_the_page_is_in_the_statistics(written):
    """Beyond those: what is said of the method itself, and how many lines there are."""
    text = text_of(written)
    text = re.sub(r"\d+ results|[\d,]+ records|whichlora [\d.]+|The \d+ MLflow runs", " ", text)  # of the page
    text = re.sub(r"80 %|95 %|90%|p below .05|arXiv [\d.]+", " ", text)  # of the methods
    records = json.loads((written / "statistics.json").read_text())
    known = set()
    for record in records:
        known |= {number for part in [record["note"], record["test"], *record["groups"]] for number in numbers(part)}
        values = [record["effect"], record["statistic"], record["p"], record["p_adjusted"], record["n"]]
        for value in [*values, *(record["df"] or ()), *(record["interval"] or ())]:
            if value is not None:
                forms = ("{:.0f}", "{:.1f}", "{:.2f}", "{:.3f}", "{:,.0f}", "{:,.2f}", "{:g}", "{:.1g}", "{:.2g}")
                known |= {number for form in forms for number in numbers(form.format(abs(value)))}
    assert [number for number in numbers(text) if number not in known] == []


def numbers(text: str) -> list[str]:
    """Return the numbers in a text, without a zero before the point."""
    found = re.findall(r"(?<![\w.])\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-\d+)?|(?<![\w\d])\.\d+", text)
    return [number.removeprefix("0") or "0" for number in found]


def test_statistics_are_a_flat_list_of_records(written):
    records = json.loads((written / "statistics.json").read_text())
    fields = {"outcome", "analysis", "test", "groups", "statistic", "df", "p", "p_adjusted", "correction", "effect"}
    assert all(set(record) == fields | {"interval", "n", "note"} for record in records)
    assert {record["outcome"] for record in records} == {"en", "tl", ""}
    analyses = {record["analysis"] for record in records}
    for wanted in (
        "primary",
        "other scope",
        "blocked",
        "friedman",
        "equivalence",
        "replication",
        "paired",
        "effects",
        "power",
        "groupings",
        "claim",
    ):
        assert wanted in analyses
    assert {"gain", "retention", "transfer gap", "gain per percent", "pareto", "agreement", "calibration"} <= analyses


def test_the_page_needs_nothing_else(written):
    class Links(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []
            self.ids: list[str] = []

        def handle_starttag(self, tag, attributes):
            values = dict(attributes)
            self.found += [values[key] for key in ("src", "href", "xlink:href", "srcset") if values.get(key)]
            self.ids += [values["id"]] if values.get("id") else []
            assert tag not in ("link", "img", "iframe")

    page = (written / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert len(links.ids) == len(set(links.ids))
    elsewhere = {link for link in links.found if not link.startswith("#")}
    assert {link for link in elsewhere if not link.startswith("./#/experiments/")} == {"disagreements.csv"}
    assert {link[1:] for link in links.found if link.startswith("#")} <= set(links.ids)
    assert "url(http" not in page
    assert "@import" not in page


def test_files_stand_beside_it(written):
    assert {p.name for p in written.iterdir()} == {
        "report.html",
        "statistics.json",
        "results.csv",
        "disagreements.csv",
        "sources.json",
        "tables",
        "figures",
    }
    assert (written / "tables" / "f1.tex").is_file()
    assert {p.suffix for p in (written / "figures").iterdir()} == {".svg", ".png"}


def test_the_same_runs_give_the_same_bytes(written, full):
    again = report_of("full", "--claims", str(written.parent / "mine.yaml"))
    texts = ("report.html", "statistics.json", "results.csv", "disagreements.csv", "sources.json", "tables/f1.md")
    for name in (*texts, "figures/cost-en.png"):
        assert (again / name).read_bytes() == (written / name).read_bytes(), name


@pytest.mark.slow
def test_every_result_is_a_line_of_the_csv_as_it_was_tracked(store):
    specs = [spec(variant, language=language) for variant in ("lora", "vera") for language in ("sw", "ur")]
    runs = {log_run(one, "e", items=12) for one in specs}
    told = pd.read_csv(report_of("e") / "results.csv", float_precision="round_trip")
    client = connect()
    assert set(told["run_id"]) == runs
    assert len(told) == 2 * len(runs)
    for language in ("sw", "ur"):
        log_run(spec("lora", language=language, tl_ratio=0.0), "zero", items=12)
    zero = pd.read_csv(report_of("zero") / "results.csv")
    assert sorted(zero["language"].fillna("")) == ["", "sw", "ur"]  # one adapter's English stands there once
    for row in told.to_dict("records"):
        assert row["f1"] == client.get_run(row["run_id"]).data.metrics[f"test/{row['outcome']}/f1"]
    assert "artifact_uri" not in told


def test_a_report_is_a_run_that_names_its_sources(store, monkeypatch):
    source = log_run(spec(), "e", items=12)
    client = connect()
    made_by = {"mlflow.source.type": "PROJECT", "mlflow.project.entryPoint": "analyze"}
    launch = client.create_run("0", tags=made_by).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launch)
    folder = report_of("e")
    report_of("e")  # the same again is the same run
    where = [experiment_id(client, "e")]
    (run,) = client.search_runs(where, "tags.`whichlora.kind` = 'report'")
    assert run.info.status == "FINISHED"
    assert run.data.tags["whichlora.launch"] == launch
    assert client.get_run(launch).data.tags["whichlora.result"] == run.info.run_id
    assert run.data.tags["whichlora.sources"] == source
    kept = Path(client.download_artifacts(run.info.run_id, ""))
    for name in ("report.html", "statistics.json", "sources.json"):
        assert (kept / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((kept / "sources.json").read_text())["runs"] == [source]
    log_run(spec("lora", seed=2), "e", items=12)
    report_of("e")
    assert len(client.search_runs(where, "tags.`whichlora.kind` = 'report'")) == 2


@pytest.mark.parametrize(
    ("design", "says"),
    [
        ({"methods": [("lora", "matched")]}, "there is one method only"),
        ({"seeds": (1,), "languages": ("sw",), "ratios": (0.5,)}, "there is one seed only"),
        ({"seeds": (1,), "languages": ("sw",)}, "One seed: "),
        ({"seeds": (1, 2), "languages": ("sw",), "ratios": (0.5,)}, "Two seeds are too few"),
    ],
)
def test_a_small_design_says_what_cannot_be_tested(store, design, says):
    log_design("e", items=12, **design)
    text = text_of(report_of("e"))
    assert says in text
    assert "Not possible with these runs:" in text


@pytest.mark.slow
def test_a_method_that_ran_alone_is_not_compared(store):
    """Its mean is that of an easier cell; the first table must not let it look best without a word."""
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1, 2), items=0)
    log_run(spec("pissa", language="hi", seed=1), "e", items=0, f1={"en": 0.97, "tl": 0.97})
    text = text_of(report_of("e"))
    assert re.search(r"PiSSA matched 97\.0 † +97\.0 †", text)
    assert "† In cells where no other method ran: not comparable." in text
    log_run(spec("dora", language="ur", tl_ratio=0.1, seed=1), "f", items=0, f1={"en": 0.97, "tl": 0.97})
    log_run(spec("lora", language="ur", tl_ratio=0.5, seed=1), "f", items=0, f1={"en": 0.9, "tl": 0.9})
    text = text_of(report_of("f"))
    assert "highest mean F1" not in text
    assert "Not compared, because they share no cell of setting, language and ratio: DoRA*; LoRA." in text
    assert "adjusted for missing cells. Not all methods ran in the same cells." in text


@pytest.mark.slow
def test_what_lacks_is_listed(store):
    log_design("e", methods=[("lora", "matched"), ("vera", "matched")], seeds=(1, 2), items=0)
    log_run(spec("lora", seed=3), "e", items=0)
    log_run(spec("vera", seed=3), "e", status="FAILED")
    log_run(spec("pissa", seed=3), "e", items=0)  # a method with one run only
    text = text_of(report_of("e"))
    assert "1 run failed" in text
    assert "module q_proj gets no gradient" in text
    assert "11 cells without all seeds" in text
    assert "results have no item-level predictions" in text
    assert "The design is incomplete: 11 cells without all seeds." in text
    listed = text.partition("missing seeds")[2]
    assert re.search(r"VeRA \S+ \S+ sw \d+ % 3 ", listed)  # that seed, of three
    assert re.search(r"PiSSA \S+ \S+ sw \d+ % 1, 2 ", listed)
    assert re.search(r"PiSSA \S+ \S+ ur \d+ % all 3 ", listed)


@pytest.mark.slow
def test_what_a_shallow_method_reaches_is_told_on_the_first_screen(store):
    floors = {"floor/en/overlap": 0.9, "floor/tl/overlap": 0.6}
    for seed, f1 in ((1, 0.8), (2, 0.9), (3, 0.95)):
        log_run(spec("lora", seed=seed), "e", items=0, f1={"en": f1, "tl": 0.7}, more=floors)
        log_run(spec("vera", seed=seed), "e", items=0, f1={"en": 0.95, "tl": 0.8}, more=floors)
    log_run(spec("vera", seed=4), "e", status="RUNNING")
    text = text_of(report_of("e"))
    told = "2 of 6 results in English are not above the floor, the best shallow method on the same items: LoRA (2)."
    assert text.index(told) < text.index("best floor 60.0 90.0") < text.index("base model 33.0 34.0")
    assert "results in the target language" not in text
    assert "1 run is left out, not finished: vera-matched atlas-nli en+sw 0.5 seed 4 (running)." in text
    for seed in (1, 2, 3):  # another task, which has no floors
        nothing = dict.fromkeys(floors, math.nan)
        log_run(spec("lora", task="tydiqa", seed=seed), "e", items=0, f1={"en": 0.6, "tl": 0.6}, more=nothing)
    text = text_of(report_of("e"))
    assert told.replace("6 results", "the 6 results with a floor (of 9)") in text
    assert "best floor 60.0" not in text.partition("Scores F1.")[0]


def test_claims_of_ones_own_are_judged_after_the_papers(written):
    text = text_of(written)
    assert "✓ supported here VeRA is last." in text
    assert "? not judged One percent of target-language items helps" in text


@pytest.mark.parametrize(
    ("claims", "titles"),
    [
        ("none", ["paper"]),
        ("paper", ["paper"]),
        ("field", ["field"]),
        ("field,paper", ["field", "paper"]),
        ("mine.yaml", ["paper", "mine.yaml"]),
        ("field, mine.yaml", ["field", "mine.yaml"]),
        ("./paper", ["paper", "Mine <b>"]),
        ("a,b.yaml", ["paper", "a,b.yaml"]),
        ("mine.yaml,mine.yaml", ["paper", "mine.yaml"]),
    ],
)
def test_the_option_says_which_claims_are_judged(claims, titles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = "claims: [{name: mine, says: S., outcome: tl, test: differ}]\n"
    Path("mine.yaml").write_text(own)
    Path("a,b.yaml").write_text(own)
    Path("paper").write_text(f"title: Mine <b>\n{own}")
    collections = [claim.collection for file in analyze._claim_files(claims) for claim in load(file)]
    packaged = {name: load(path)[0].collection for name, path in PACKAGED.items()}
    assert list(dict.fromkeys(collections)) == [packaged.get(title, title) for title in titles]


@pytest.mark.slow
def test_claims_are_grouped_by_their_source(full):
    Path("mine.yaml").write_text(
        "title: Mine <b>\nclaims: [{name: a, says: Last., outcome: tl, test: order, arguments: {order: '* > VeRA'}}]\n"
    )
    folder = report_of("full", "--claims", "field,mine.yaml")
    page = (folder / "report.html").read_text()
    claims = page[page.index('<h2 id="claims">') : page.index('<h2 id="layers">')]
    assert re.findall("<h3>(.*?)</h3>", claims) == ["Mine &lt;b&gt;", "The field, 2025 and 2026"]
    text = text_of(folder)
    assert "✓ supported here Last." in text
    assert "Design: LoRA and at least two of its variants in the arm tuned" in text
    assert "A design is missing that trains languages one after another" in text
    assert "18 claims cannot be judged by these runs" in text


@pytest.mark.slow
def test_a_launch_writes_where_it_was_called(full_design, tmp_path):
    from launching import PROJECT, launch

    call = tmp_path / "a call"  # the space must survive the shell
    call.mkdir()
    shutil.copy(full_design.removeprefix("sqlite:///"), call / "mlflow.db")
    with sqlite3.connect(call / "mlflow.db") as database:  # artifacts are written beside the copy
        database.execute("UPDATE experiments SET artifact_location = ? || name", [f"{call.as_uri()}/mlartifacts/"])
    before = set(PROJECT.iterdir())
    status, text = launch(call, "-e", "analyze", experiment="bare", output="my report")
    assert status == 0, text
    assert (call / "my report" / "report.html").is_file()
    assert "In English no test of the methods can be made: there is one method only." in text
    assert set(PROJECT.iterdir()) == before


def test_names_are_escaped(store):
    log_run(spec("<b>x</b>", model="m&m"), "e", items=12)
    page = (report_of("e") / "report.html").read_text()
    assert "<b>x</b>" not in page
    assert "m&amp;m" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--experiment", "nope"],
            "error: experiment=nope: no such experiment; existing are Default, bare, full",
        ),
        (["--experiment", "Default"], "error: experiment=Default: has no finished run to analyse"),
        (["--experiment", "full", "--margin", "0"], "error: margin=0: must be a number of F1 points"),
        (["--experiment", "full", "--margin", "x"], "error: margin=x: must be a number of F1 points"),
        (["--experiment", "full", "--scope", "all"], "error: scope=all: allowed are these, like-these"),
        (["--experiment", "full", "--claims", "no.yaml"], "error: claims=no.yaml: must be a YAML file"),
        (["--experiment", "full", "--claims", "field,no"], "error: claims=field,no: no must be a YAML file"),
        (["--experiment", "full", "--claims", "field,"], "error: claims=field,: an empty part must be a YAML"),
        (["--experiment", "full", "--claims", "none,field"], "error: claims=none,field: none must be a YAML file"),
        (["--experiment", "full", "--server", "5000"], "error: server=5000: must be relative, or an http(s) address"),
        (["--experiment", "full", "--server", "http://a:b@host"], "error: server=http://a:***@host: must be relative"),
        (["--experiment", "full", "--output", "file"], "error: output=file: must be a new or existing folder"),
    ],
)
def test_bad_options_end_with_status_2_and_one_line(full, capsys, arguments, says):
    Path("file").touch()
    assert analyze.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(says)
    assert error.count("\n") == 1


def test_where_there_is_no_database_none_is_made(store, capsys):
    file = store / "mlflow.db"
    file.unlink()
    assert analyze.main(["--experiment", "pocket"]) == 2
    assert f"error: experiment=pocket: there is no tracking database {file}" in capsys.readouterr().err
    assert list(store.iterdir()) == []


def record(test: str, groups: tuple[str, ...], **fields: object) -> Record:
    return Record(outcome="tl", analysis="primary", test=test, groups=groups, **fields)  # type: ignore[arg-type]


def pair(first: str, second: str, p: float, scope: str = "these") -> Record:
    return record(PAIR_TESTS[scope], (first, second), effect=0.5, interval=(-1.0, 2.0), p=p, p_adjusted=p, n=12)


def test_no_difference_is_never_called_equality():
    names = ("A", "B")
    means = [record("adjusted mean", (name,), effect=80.0) for name in names]
    tost = record("TOST", names, p=0.2, p_adjusted=0.2)
    told = " ".join(sentences.answer([pair("A", "B", 0.5), *means, tost], "tl", 1.0))
    assert "no difference between the methods was found on these languages and ratios" in told
    assert "does not show that there is none" in told
    assert "0 of 1 pair are shown to be equivalent within 1 point." in told
    proven = replace(tost, p=0.01, p_adjusted=0.01)
    assert (
        "the methods are equivalent on these languages and ratios (error: seeds): A and B within 1 point"
        in " ".join(sentences.answer([pair("A", "B", 0.5), *means, proven], "tl", 1.0))
    )


@pytest.mark.parametrize("scope", ["these", "like-these"])
def test_both_questions_are_answered_and_the_first_is_the_one_that_was_asked(scope):
    """The languages differ in which method is ahead, so that only these can be spoken of."""
    table = designs.table({"LoRA": 0, "DoRA": 0, "VeRA": 0}, outcomes=("tl",), seed_sd=0.3, interaction_sd=2.0)
    first, *_, last = sentences.answer(headline(table, "tl", 1.0, scope), "tl", 1.0)
    these, others = "on these languages and ratios (error: seeds)", "like these (error: how differences vary between"
    assert (these if scope == "these" else others.partition(" (")[0]) in first
    assert (others if scope == "these" else these[1:]) in last
    assert ("pairs of methods differ" in first) == (scope == "these")


def test_methods_of_unequal_errors_are_each_compared_on_their_own():
    """Two methods that go together from seed to seed, and one that goes its own way."""
    rng = np.random.default_rng(3)
    table = designs.table({"LoRA": 0, "DoRA": -1, "VeRA": 0}, outcomes=("tl",), seed_sd=0.2)
    wild = np.where(table["method"] == "VeRA", rng.normal(0, 0.05, len(table)), 0.0)
    told = sentences.answer(headline(table.assign(f1=table["f1"] + wild), "tl", 1.0, "these"), "tl", 1.0)[0]
    assert "1 of 3 pairs of methods differ" in told
    assert "methods that share a letter do not differ significantly" in told
