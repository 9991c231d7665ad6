"""Plots can be told apart without colour, show no boxes for letters, and are whole."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import matplotlib.image
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from analysis import plots
from analysis.plots import style
from analysis.plots.comparisons import critical_difference
from analysis.plots.lettering import transliterate
from analysis.plots.scores import f1_by_ratio
from analysis.runs.pull import pull
from analysis.stats.ranks import ranks
from whichlora.tracking.lookup import find_experiments

REFERENCES = ("best floor", "base model")


def test_every_kind_is_drawn(written):
    kinds = ("f1", "blocks", "cost", "leaders", "differences", "ranks", "profile")
    wanted = {f"{kind}-{outcome}" for kind in kinds for outcome in ("en", "tl")} | {"detectable", "loss-1"}
    for end in ("svg", "png"):
        assert {path.stem for path in (written / "figures").glob(f"*.{end}")} == wanted


@pytest.mark.parametrize("ratios", [1, 2])
def test_what_is_to_be_beaten_is_drawn_where_it_is_known(full, monkeypatch, ratios):
    table = pull(MlflowClient(), find_experiments(MlflowClient(), "full")).table
    table = table[table["tl_ratio"].isin(sorted(set(table["tl_ratio"]))[:ratios])]

    def drawn(table):
        lines = {}
        with monkeypatch.context() as watched:
            keep = lambda figure, axes: lines.update({line.get_label(): line for line in axes.get_lines()})  # noqa: E731
            watched.setattr(plots.scores, "shared_legend", keep)
            plot = f1_by_ratio(
                table, "tl", marks=style.method_styles(sorted(set(table["method"]))), name="f1", prefix=""
            )
        return lines, plot.caption

    lines, caption = drawn(table)
    assert ("Grey reference lines" in caption) == (ratios > 1)
    floor, base = (lines[name].get_ydata() if ratios > 1 else lines[name].get_xdata() for name in REFERENCES)
    assert list(floor) == [pytest.approx(70)] * 2
    assert list(base) == [pytest.approx(100 * table[table["outcome"] == "tl"]["base_f1"].mean())] * 2
    unknown = table.drop(columns=[c for c in table if c.startswith("floor/")]).assign(base_f1=np.nan)
    lines, _ = drawn(unknown)
    assert not lines.keys() & set(REFERENCES)


def test_the_loss_is_that_of_the_cell_with_most_target_items(written):
    page = (written / "report.html").read_text()
    assert "atlas-nli, smollm2-135m, sw, 50 % target items, seeds 1, 2, 3." in page


def test_an_svg_stands_in_a_page_with_others(written):
    drawn = [path.read_text() for path in (written / "figures").glob("*.svg")]
    ids = [i for svg in drawn for i in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    for svg in drawn:
        own = {element.get("id") for element in ET.fromstring(svg).iter()}
        assert set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg)) <= own
        assert not re.search(r"""(src|href)=["'](?!#)""", svg)  # nothing is fetched


def test_methods_differ_in_more_than_colour():
    made = style.method_styles([str(i) for i in range(24)])
    assert len({(s.marker, str(s.linestyle)) for s in made.values()}) == 24
    assert len({s.marker for s in list(made.values())[:11]}) == 11


def whole(png: bytes) -> bool:
    """Is everything drawn within the picture?"""
    image = matplotlib.image.imread(io.BytesIO(png))[..., :3]
    return bool((np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]) == 1).all())


def test_nothing_is_cut_off(written):
    for path in (written / "figures").glob("*.png"):
        assert whole(path.read_bytes()), path.name


def test_a_style_that_other_code_has_set_changes_nothing():
    def draw() -> str:
        figure, axes = style.new_figure(2.0)
        with style.plot_style():
            axes.plot([1, 2], label="a line")
            style.shared_legend(figure, axes)
        return style.render(figure, name="line", title="A line", caption="").svg

    own = draw()
    with matplotlib.style.context("ggplot"):
        assert draw() == own


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scores", [(0.5, 0.5, 0.5), (0.5, 0.6, 0.55)])
def test_a_critical_difference_wider_than_the_ranks_fits(scores):
    """With two blocks nothing can be told apart, and the ruler is longer than the scale."""
    cells = [(m, ratio, f1) for ratio in (0.0, 0.5) for m, f1 in zip("ABC", scores, strict=True)]
    table = pd.DataFrame(cells, columns=["method", "tl_ratio", "f1"])
    table.loc[0, "f1"] += 0.2
    table = table.assign(language="sw", seed=1, outcome="tl")
    plot = critical_difference(ranks(table, outcome="tl"), "tl", name="x")
    assert plot is not None
    assert whole(plot.png)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("LoRA − DoRA* ± 1 °C", "LoRA − DoRA* ± 1 °C"),
        ("اردو", "اردو"),  # the font has these, and joins them
        ("हिन्दी", "hindii"),
        ("বাংলা", "baamlaa"),
        ("తెలుగు", "telugu"),
        ("中文 2", "U+4E2DU+6587 2"),
    ],
)
def test_letters_that_the_font_lacks_are_transliterated(text, expected):
    assert transliterate(text) == expected


def test_labels_of_every_script_are_drawn_without_a_missing_glyph(recwarn):
    figure, axes = style.new_figure(1)
    axes.set_title("हिन्दी বাংলা తెలుగు اردو")
    style.label_ticks(axes.xaxis, ["हिन्दी", "中文"])
    style.render(figure, name="x", title="", caption="")
    assert not [w for w in recwarn if "missing from font" in str(w.message)]


def test_long_names_leave_room_for_the_axes(recwarn):
    name = "Hybrid-LoRA, learning rate 0.002, full rate 0.04, full share 0.1, selection gradient"
    assert style.max_lines(["LoRA"]) == 1
    assert style.max_lines(["LoRA", name]) > 2
    figure, axes = style.new_figure(2.6)
    for number in range(6):
        axes.plot([0, 1], [number, number], label=f"{name} {number}")
    style.label_ticks(axes.yaxis, [f"{name} {number}" for number in range(6)])
    style.shared_legend(figure, axes)
    style.render(figure, name="names", title="", caption="")
    assert not recwarn.list
    assert axes.get_window_extent().width > 0.4 * figure.bbox.width
