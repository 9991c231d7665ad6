"""Catalogues the LoRA variants and the references they are compared with."""

from __future__ import annotations

import copyreg

from whichlora.errors import choose
from whichlora.variants.adalora import ADALORA
from whichlora.variants.base import AdapterSettings, Hyperparameters, SearchSpace, Variant
from whichlora.variants.delora import DELORA
from whichlora.variants.gralora import GRALORA
from whichlora.variants.hira import HIRA
from whichlora.variants.initializations import EVA, OLORA
from whichlora.variants.lora import DORA, LORA, PISSA, RSLORA
from whichlora.variants.lora_plus import LORA_PLUS
from whichlora.variants.lycoris import LOHA, LOKR
from whichlora.variants.miss import MISS
from whichlora.variants.orthogonal import HRA, OFT
from whichlora.variants.randlora import RANDLORA
from whichlora.variants.references import FULL, NONE
from whichlora.variants.scaling import IA3, ROAD
from whichlora.variants.sparse import FOURIERFT, SHIRA
from whichlora.variants.vera import VERA

# STUDIED: the variants of "Which LoRA?"; WIDER: all other adapters.
STUDIED = (LORA, DORA, VERA, ADALORA, PISSA, RSLORA)
WIDER = (
    OLORA,
    EVA,
    LORA_PLUS,
    MISS,
    OFT,
    IA3,
    HIRA,
    RANDLORA,
    DELORA,
    GRALORA,
    HRA,
    LOHA,
    LOKR,
    FOURIERFT,
    SHIRA,
    ROAD,
)
CATALOGUE = {v.name: v for v in (*STUDIED, *WIDER, FULL, NONE)}


def get_variant(name: str) -> Variant:
    """Return the variant called `name`.

    Raises:
        OptionError: There is no such variant; the message lists the names.
    """
    return CATALOGUE[choose("variant", name, CATALOGUE)]


# A declaration contains functions that cannot be pickled, so only its name is sent to other processes.
copyreg.pickle(Variant, lambda variant: (get_variant, (variant.name,)))


__all__ = [
    "CATALOGUE",
    "STUDIED",
    "WIDER",
    "AdapterSettings",
    "Hyperparameters",
    "SearchSpace",
    "Variant",
    "get_variant",
]
