"""Plots can be told apart without colour, show no boxes for letters, and are the same each time."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import matplotlib.image
import mlflow
import numpy as np
import pytest

from analysis import losses, plots, runs
from analysis.evidence import OUTCOMES
from analysis.plots import style
from analysis.plots.lettering import readable
from analysis.stats.blocked import blocked
from analysis.stats.equivalence import equivalence
from analysis.stats.power import power
from analysis.stats.ranks import ranks
from whichlora import tracking


@pytest.fixture(scope="module")
def drawn(full_design: str) -> dict[str, plots.Plot]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(full_design)
    client = tracking.connect()
    table = runs.pull(client, runs.find_experiments(client, "full")).table
    records = [
        record
        for outcome in OUTCOMES
        for test in (blocked, equivalence, ranks, power)
        for record in test(table, outcome=outcome)
    ]
    made = plots.make_plots(table, records, losses.fetch(client, table), margin=1.0)
    mlflow.set_tracking_uri(before)
    return {plot.name: plot for plot in made}


def test_every_kind_is_drawn(drawn):
    kinds = ("f1", "blocks", "cost", "differences", "ranks")
    assert set(drawn) == {f"{kind}-{outcome}" for kind in kinds for outcome in OUTCOMES} | {"power-curve", "loss-1"}


def test_the_loss_is_that_of_the_cell_with_most_target_items(drawn):
    assert drawn["loss-1"].caption.startswith("atlas-nli, smollm2-135m, sw, 50 % target items, seeds 1, 2, 3.")


def test_an_svg_stands_in_a_page_with_others(drawn):
    ids = [i for plot in drawn.values() for i in re.findall(r'\bid="([^"]+)"', plot.svg)]
    assert len(ids) == len(set(ids))
    for plot in drawn.values():
        root = ET.fromstring(plot.svg)
        own = {element.get("id") for element in root.iter()}
        assert {target[1:] for target in re.findall(r'href="(#[^"]+)"', plot.svg)} <= {f"{i}" for i in own}
        assert not re.search(r"""(src|href)=["'](?!#)""", plot.svg)  # nothing is fetched


def test_methods_differ_in_more_than_colour():
    made = style.styles([str(i) for i in range(24)])
    assert len({(s.marker, str(s.linestyle)) for s in made.values()}) == 24
    assert len({s.marker for s in list(made.values())[:11]}) == 11


def test_nothing_is_cut_off(drawn):
    for plot in drawn.values():
        image = matplotlib.image.imread(io.BytesIO(plot.png))[..., :3]
        edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edges == 1).all(), plot.name


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
    style.finish(figure, name="x", title="", caption="")
    assert not [w for w in recwarn if "missing from font" in str(w.message)]
