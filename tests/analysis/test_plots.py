"""Plots can be told apart without colour, show no boxes for letters, and are whole."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib.image
import numpy as np
import pytest

from analysis.plots import style
from analysis.plots.lettering import readable


def test_every_kind_is_drawn(written):
    kinds = ("f1", "blocks", "cost", "differences", "ranks")
    wanted = {f"{kind}-{outcome}" for kind in kinds for outcome in ("en", "tl")} | {"power-curve", "loss-1"}
    for end in ("svg", "png"):
        assert {path.stem for path in (written / "figures").glob(f"*.{end}")} == wanted


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
    made = style.styles([str(i) for i in range(24)])
    assert len({(s.marker, str(s.linestyle)) for s in made.values()}) == 24
    assert len({s.marker for s in list(made.values())[:11]}) == 11


def test_nothing_is_cut_off(written):
    for path in (written / "figures").glob("*.png"):
        image = matplotlib.image.imread(path)[..., :3]
        edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edges == 1).all(), path.name


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
    assert readable(text) == expected


def test_labels_of_every_script_are_drawn_without_a_missing_glyph(recwarn):
    figure, axes = style.new(1)
    axes.set_title("हिन्दी বাংলা తెలుగు اردو")
    style.ticks(axes.xaxis, ["हिन्दी", "中文"])
    style.finish(figure, name="x", title="", caption="")
    assert not [w for w in recwarn if "missing from font" in str(w.message)]
