"""The page serves a reader in a hurry: links, sorting, narrow screens, and the terms of statistics."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import designs
import numpy as np
import pandas as pd
import pytest

from analysis.decimals import fixed, interval
from analysis.measures.disagreements import disagreements
from analysis.naming import Names
from analysis.records import find
from analysis.report import page, run_links
from analysis.report.disputed_items import disputed_items, to_csv
from analysis.stats.differences import differences
from analysis.stats.groupings import differences_from_highest
from analysis.tables.formats import number, statistic

FORBIDDEN = (
    r"told (apart|from)|tells? apart|stands? (above|on|beside|out)\b|\bbeside\b|layers speak|make of them|"
    r"what there is|"
    r"by itself|1 more pairs|-0\.0+\b(?!\d)|is no equality|least difference"
)
"""What a statistician would not write, and numbers that say nothing."""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def source(folder: Path) -> str:
    return (folder / "report.html").read_text()


def words(folder: Path) -> str:
    text = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", source(folder), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def test_the_words_are_those_of_statistics(written):
    texts = [words(written), (written / "statistics.json").read_text()]
    texts += [path.read_text() for path in (written / "tables").glob("*.md")]
    assert [found[0] for text in texts for found in re.finditer(FORBIDDEN, text)] == []


def test_the_first_screen_is_in_the_order_of_a_reader_in_a_hurry(written):
    text = source(written)
    parts = ("<h1>", 'class="scope"', 'class="lead"', 'class="caution"', 'id="leaders-tl"', 'id="leaders-en"')
    parts += (
        'id="summary"',
        "<h2>Target language",
        "<h2>English",
        "<h2>What the results depend on",
        '<h2 id="scores">',
    )
    assert [part for part in parts if part not in text] == []
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_a_table_of_needs_has_its_place_under_the_figure():
    need = SimpleNamespace(need="Least <time>", answer="LoRA", detail="174 s")
    render = page._environment().get_template("first.html.j2").render
    none = {"comparisons": [], "cautions": [], "advice": [], "leaders": [], "compared": False, "dependence": []}
    assert "needs" not in render(needs=[], **none)
    made = render(needs=[need], **none)
    assert "Least &lt;time&gt;" in made
    assert made.index('id="needs"') < made.index("LoRA") < made.index("174 s")


def test_differences_from_the_highest_mean_are_those_of_the_primary_analysis():
    table = designs.table({"LoRA": 0, "DoRA": -1, "VeRA": 2}, outcomes=("tl",))
    records = differences(table, outcome="tl")
    best, *others = differences_from_highest(records)
    assert (best.name, best.effect, best.interval) == ("VeRA", 0.0, None)
    means = {r.groups[0]: r.effect for r in find(records, test="adjusted mean")}
    for other in others:
        (record,) = (r for r in records if {*r.groups} == {other.name, "VeRA"} and r.test.startswith("difference"))
        assert other.effect == pytest.approx(means[other.name] - means["VeRA"])
        assert other.interval[0] < other.effect < other.interval[1]
        assert sorted(map(abs, other.interval)) == pytest.approx(sorted(map(abs, record.interval)))
        assert (other.interval[1] < 0) == (other.p < 0.05)


@pytest.mark.parametrize(
    ("server", "start"),
    [("relative", "./#/"), ("http://host:5000", "http://host:5000/#/"), ("https://h/ml/", "https://h/ml/#/")],
)
def test_a_link_leads_to_its_run(server, start):
    table = designs.table({"LoRA": 0}, languages=("sw",), ratios=(0.1,), seeds=(1, 2)).assign(
        setting="s", variant="lora", experiment="e", run_id="run <1>"
    )
    ((row),) = run_links.run_table(table, {"e": "7"}, server).rows
    assert [link.seed for link in row.cells[0]] == ["1", "2"]
    assert {link.address for link in row.cells[0]} == {f"{start}experiments/7/runs/run%20%3C1%3E"}
    for foreign in (table.drop(columns="experiment"), table.assign(run_id=np.nan), table.drop(columns="run_id")):
        made = run_links.run_table(foreign, {"e": "7"}, server)
        assert not made.linked
        assert [link.seed for link in made.rows[0].cells[0]] == ["1", "2"]


def test_every_run_has_its_link(written):
    runs = json.loads((written / "sources.json").read_text())["runs"]
    linked = re.findall(r'href="\./#/experiments/(\d+)/runs/([0-9a-f]{32})"', source(written))
    assert sorted(run for _, run in linked) == sorted(runs)


def test_items_are_sorted_by_how_much_the_methods_disagree():
    items = designs.items({"A": 0.8, "B": 0.5, "C": 0.7}, n=50, seeds=(1, 2, 3))
    items = items.assign(gold="yes", predicted=np.where(items["correct"] == 1, "yes", "no"))
    table = disagreements(items)
    shares = items.groupby(["id", "method"])["correct"].mean().unstack()
    expected = shares.std(axis=1, ddof=0)
    assert len(table) == (expected > 0).sum()
    assert list(table["disagreement"]) == sorted(table["disagreement"], reverse=True)
    first = table.iloc[0]
    assert first["disagreement"] == pytest.approx(expected.max())
    assert [first[f"right: {m}"] for m in "ABC"] == pytest.approx(list(shares.loc[first["id"]]))
    shown = disputed_items(table, "file.csv", Names()).rows[0]
    assert [text.split("/")[0] for text in shown.answers] == [f"{3 * s:.0f}" for s in shares.loc[first["id"]]]


def test_a_spreadsheet_takes_no_cell_for_a_formula():
    items = designs.items({"=cmd()": 0.9, "B": 0.2}, n=8)
    items = items.assign(gold="@gold", predicted="-2+3", id="+item " + items["id"])
    written = to_csv(disagreements(items))
    cells = pd.read_csv(pd.io.common.StringIO(written), dtype=str)
    texts = [*cells.columns, *cells[["item", "gold", "answer: B"]].to_numpy().ravel()]
    assert [text for text in texts if text.startswith(("=", "+", "-", "@"))] == []
    assert cells["item"].str.startswith("'+").all()


def test_claims_without_a_test_are_folded_to_a_line(written):
    text = source(written)
    folded = text[text.index('<details class="unjudged">') :]
    count = int(re.search(r"<summary>(\d+) claims cannot be judged by these runs: ", folded)[1])
    assert folded[: folded.index("</details>")].count("<li>") == count
    before = text[text.index('<h2 id="claims">') : text.index('<details class="unjudged">')]
    assert "VeRA is last." in before
    assert "there are no runs with" not in before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (statistic(39_486_879.55), "> 10,000"),
        (statistic(-20_000.0), "< -10,000"),
        (statistic(174.2), "174.20"),
        (number(-0.0), "0.00"),
        (number(-1e-14), "0.00"),
        (number(-0.04), "-0.04"),
        (number(2_442_240), "2,442,240"),
        (fixed(-0.04, 1), "0.0"),
        (fixed(0.004, 2, sign=True), "0.00"),
        (fixed(0.4, 2, sign=True), "+0.40"),
        (interval(-0.03, 2.2), "-0.03 to 2.20"),
        (interval(-1e-12, 2.2), "0.0 to 2.2"),
        (interval(-3.04, -0.004), "-3.040 to -0.004"),
    ],
)
def test_numbers_are_printed_as_a_reader_needs_them(text, expected):
    assert text == expected


def test_the_primary_outcome_comes_first():
    assert page._outcomes("mean", ("en", "tl")) == ("mean", "en", "tl")
    assert page._outcomes("tl", ("en", "tl")) == ("tl", "en")
    assert page._outcomes("tl", ("tl",)) == ("tl",)


def browse(folder: Path, script: str, width: int, tmp_path: Path) -> dict[str, object]:
    """Return what a script finds in the report in a frame of this width, in a real browser."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium to look at the page with")
    send = f"parent.postMessage(JSON.stringify((() => {{{script}}})()), '*')"
    tell = f"<script>addEventListener('load', () => {send})</script>"
    (tmp_path / "inner.html").write_text(source(folder).replace("</body>", f"{tell}</body>"))
    listen = "onmessage = (event) => { document.body.append('FOUND' + event.data + 'END'); }"
    frame = f'<iframe src="inner.html" style="width:{width}px;height:800px;border:0"></iframe>'
    (tmp_path / "outer.html").write_text(f"<body><script>{listen}</script>{frame}</body>")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--virtual-time-budget=9000",
    )
    command = [
        CHROMIUM,
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"file://{tmp_path}/outer.html",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    found = re.search(r"FOUND(\{.*?\})END", html.unescape(dom))
    assert found, dom[-500:]
    return dict(json.loads(found[1]))


@pytest.mark.slow
def test_a_browser_sorts_and_cuts_nothing_off(written, tmp_path):
    script = """
      const table = document.querySelector("#summary table");
      const head = [...table.tHead.rows[0].cells].find((cell) => cell.textContent.startsWith("seconds"));
      const column = [...head.parentNode.cells].indexOf(head);
      const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
      head.querySelector("button").click();
      const rising = read(), sorted = head.getAttribute("aria-sort");
      head.querySelector("button").click();
      const root = document.documentElement;
      return {rising, falling: read(), sorted, width: root.scrollWidth, inner: root.clientWidth,
        cards: getComputedStyle(table.rows[1]).display,
        cut: [...document.querySelectorAll("table")].filter((t) => !t.closest(".scroll") && t.scrollWidth > 390).length,
        dead: document.querySelectorAll("a.run[href]").length};
    """
    found = browse(written, script, 390, tmp_path)
    seconds = [float(text.split()[0].replace(",", "")) for text in found["rising"]]
    assert seconds == sorted(seconds)
    assert found["falling"] == list(reversed(found["rising"]))
    assert found["sorted"] == "ascending"
    assert found["width"] == found["inner"] <= 390
    assert (found["cards"], found["cut"], found["dead"]) == ("block", 0, 0)  # a file has no server to link to
