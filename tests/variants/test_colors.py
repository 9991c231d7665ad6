"""Colours of methods in the MLflow UI."""

from __future__ import annotations

import itertools
import re

from whichlora.variants import CATALOGUE
from whichlora.variants.colors import method_color


def test_methods_differ_in_colour_and_keep_it() -> None:
    methods = [(variant, arm) for variant in CATALOGUE for arm in ("matched", "recommended", "tuned")]
    colors = {method: method_color(*method) for method in methods}
    assert all(re.fullmatch("#[0-9A-F]{6}", color) for color in colors.values())
    assert len(set(colors.values())) == len(methods)
    studied = [color for (_, arm), color in colors.items() if arm == "matched"][:6]
    channels = [[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in studied]
    for one, other in itertools.combinations(channels, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80
    assert method_color("elsewhere", "matched") == method_color("elsewhere", "matched")
    assert method_color("elsewhere", "matched") != method_color("nowhere", "matched")
