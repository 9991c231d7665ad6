"""Catalogues the LoRA variants and the references they are compared with; finds those of installed packages."""

from __future__ import annotations

import copyreg

from whichlora.errors import check_choice
from whichlora.variants import plugins
from whichlora.variants.base import AdapterSettings, Hyperparameters, SearchSpace, Variant
from whichlora.variants.methods.adalora import ADALORA
from whichlora.variants.methods.delora import DELORA
from whichlora.variants.methods.gralora import GRALORA
from whichlora.variants.methods.hira import HIRA
from whichlora.variants.methods.initializations import EVA, OLORA
from whichlora.variants.methods.lora import DORA, LORA, PISSA, RSLORA
from whichlora.variants.methods.lora_plus import LORA_PLUS
from whichlora.variants.methods.lycoris import LOHA, LOKR
from whichlora.variants.methods.miss import MISS
from whichlora.variants.methods.orthogonal import HRA, OFT
from whichlora.variants.methods.randlora import RANDLORA
from whichlora.variants.methods.references import FULL, NONE
from whichlora.variants.methods.scaling import IA3, ROAD
from whichlora.variants.methods.sparse import FOURIERFT, SHIRA
from whichlora.variants.methods.vera import VERA

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
    """Return the variant called `name`, from the catalogue or else from the installed package that declares it.

    The catalogue's names cannot be overridden: a package's variant of such a name is never loaded.

    Raises:
        OptionError: There is no such variant, and the message lists the names; or the package's declaration is wrong.
    """
    return CATALOGUE[name] if choose_variant(name) in CATALOGUE else plugins.load(name)


def choose_variant(name: str) -> str:
    """Return `name` if there is a variant called so, else raise `OptionError`; no package is imported."""
    return name if name in CATALOGUE else check_choice("variant", name, variant_names())


def variant_names() -> list[str]:
    """Return the names of the catalogue, and then those that installed packages declare."""
    return [*CATALOGUE, *(name for name in plugins.declarations() if name not in CATALOGUE)]


def provider(name: str) -> plugins.Distribution | None:
    """Return the installed package that declares a variant; None for the catalogue's, and where there is none."""
    entries = [] if name in CATALOGUE else plugins.declarations().get(name, [])
    return plugins.distribution_of(entries[0]) if entries else None


def overridden() -> list[str]:
    """Return a sentence for each variant that a package declares under a name of the catalogue."""
    return [
        f"{plugins.distribution_of(entry)} declares a variant {name}, which is ignored: the catalogue has that name"
        for name, entries in plugins.declarations().items()
        if name in CATALOGUE
        for entry in entries
    ]


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
    "choose_variant",
    "get_variant",
    "overridden",
    "provider",
    "variant_names",
]
