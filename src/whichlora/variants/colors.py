"""Colours of methods in the MLflow UI, which otherwise takes those of runs from their ids."""

from __future__ import annotations

import colorsys
import zlib

from whichlora.variants import CATALOGUE

RUN_COLOR = "mlflow.runColor"
"""Tag of a run with its colour in tables and charts."""
# For the first methods that of Okabe and Ito (2008), made for readers with colour-vision deficiency.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31")
_LATER = (
    *("molf", "molf-efficient", "hybrid-lora"),
    *("lily", "frod", "c3a", "bd-lora", "deft", "psoft", "glora", "waveft", "uni-lora", "vb-lora"),
    *("lora-fa", "lora-ga", "corda"),
)
"""Variants that came when runs of the others had colours, which therefore come last here."""
_GOLDEN_RATIO = 0.618033988749895
_TOWARDS = {"recommended": (255, 0.45), "tuned": (0, 0.35)}
"""Of arms other than `matched`: the grey value that the colour is mixed with, and its share."""


def method_color(variant: str, arm: str) -> str:
    """Return the colour of a method as `#RRGGBB`: the same in all runs, and lighter or darker in other arms.

    Hues of methods beyond the palette are apart by the golden ratio; a variant from outside the catalogue gets one by
    its name.
    """
    names = sorted(CATALOGUE, key=_LATER.__contains__)
    index = names.index(variant) if variant in names else zlib.crc32(variant.encode())
    if index < len(_PALETTE):
        rgb = [int(_PALETTE[index][i : i + 2], 16) for i in (1, 3, 5)]
    else:
        hue = index * _GOLDEN_RATIO % 1
        rgb = [round(255 * part) for part in colorsys.hls_to_rgb(hue, (0.35, 0.5, 0.65)[index % 3], 0.6)]
    grey, share = _TOWARDS.get(arm, (0, 0.0))
    return "#" + "".join(f"{round((1 - share) * part + share * grey):02X}" for part in rgb)
