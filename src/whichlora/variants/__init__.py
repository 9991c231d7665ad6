"""The catalogue of variants."""

from __future__ import annotations

from whichlora.errors import choose
from whichlora.variants.adalora import ADALORA
from whichlora.variants.base import AdapterSettings, Hyperparameters, SearchSpace, Variant
from whichlora.variants.baselines import FULL, NONE
from whichlora.variants.lora import DORA, LORA, PISSA, RSLORA
from whichlora.variants.vera import VERA

CATALOGUE = {v.name: v for v in (LORA, DORA, VERA, ADALORA, PISSA, RSLORA, FULL, NONE)}


def get_variant(name: str) -> Variant:
    """Return the variant called `name`.

    Raises:
        OptionError: there is none; the message lists the names.
    """
    return CATALOGUE[choose("variant", name, CATALOGUE)]


__all__ = ["CATALOGUE", "AdapterSettings", "Hyperparameters", "SearchSpace", "Variant", "get_variant"]
