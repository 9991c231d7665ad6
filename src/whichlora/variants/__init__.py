"""Catalogue of the adapter methods and the references they are compared with.

`base` defines `Variant`, the declaration of a method; `methods` contains the declarations; `plugins` finds those of
installed packages; `selection` chooses layers that are trained in full; `routing` is the optimiser of mixtures of
experts and `routing_record` what it logs; `witness` checks that a method trained as declared; `capabilities` is the
table of what was tried out for each adapter; `command` prints the catalogue.
"""

from __future__ import annotations

import copyreg

from whichlora.errors import check_choice
from whichlora.variants import plugins
from whichlora.variants.base import AdapterSettings, FullSelection, Hyperparameters, SearchSpace, Variant
from whichlora.variants.methods.adalora import ADALORA
from whichlora.variants.methods.blocks import BD_LORA, GRALORA
from whichlora.variants.methods.delora import DELORA
from whichlora.variants.methods.full_rank import C3A, FROD, RANDLORA
from whichlora.variants.methods.hira import HIRA
from whichlora.variants.methods.hybrid_lora import HYBRID_LORA
from whichlora.variants.methods.initializations import CORDA, EVA, LORA_GA, OLORA
from whichlora.variants.methods.lora import DORA, LORA, PISSA, RSLORA
from whichlora.variants.methods.lora_optimizers import LORA_FA, LORA_PLUS
from whichlora.variants.methods.lycoris import LOHA, LOKR
from whichlora.variants.methods.miss import MISS
from whichlora.variants.methods.molf import MOLF, MOLF_EFFICIENT
from whichlora.variants.methods.orthogonal import HRA, OFT, PSOFT
from whichlora.variants.methods.references import FULL, NONE
from whichlora.variants.methods.scaling import IA3, ROAD
from whichlora.variants.methods.sharing import LILY, UNI_LORA, VB_LORA
from whichlora.variants.methods.sparse import FOURIERFT, SHIRA, WAVEFT
from whichlora.variants.methods.vera import VERA
from whichlora.variants.methods.weight_dependent import DEFT, GLORA

STUDIED = (LORA, DORA, VERA, ADALORA, PISSA, RSLORA)
"""The variants of "Which LoRA?"."""
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
    MOLF,
    MOLF_EFFICIENT,
    HYBRID_LORA,
    LILY,
    FROD,
    C3A,
    BD_LORA,
    DEFT,
    PSOFT,
    GLORA,
    WAVEFT,
    UNI_LORA,
    VB_LORA,
    LORA_FA,
    LORA_GA,
    CORDA,
)
"""All other adapters, and mixtures of an adapter with full fine-tuning."""
CATALOGUE = {v.name: v for v in (*STUDIED, *WIDER, FULL, NONE)}


def get_variant(name: str) -> Variant:
    """Return the variant named `name`, from the catalogue or else from the installed package that declares it.

    Names of the catalogue cannot be overridden: a package's variant with such a name is never loaded.

    Raises:
        OptionError: there is no such variant (the message lists the names), or the package's declaration is invalid.
    """
    return CATALOGUE[name] if choose_variant(name) in CATALOGUE else plugins.load(name)


def choose_variant(name: str) -> str:
    """Return `name` if a variant has this name, without importing any package.

    Raises:
        OptionError: no variant has this name; the message lists the names.
    """
    return name if name in CATALOGUE else check_choice("variant", name, variant_names())


def variant_names() -> list[str]:
    """Return the names of the catalogue, followed by those that installed packages declare."""
    return [*CATALOGUE, *(name for name in plugins.declarations() if name not in CATALOGUE)]


def provider(name: str) -> plugins.Distribution | None:
    """Return the installed package that declares a variant; None for variants of the catalogue and unknown names."""
    entries = [] if name in CATALOGUE else plugins.declarations().get(name, [])
    return plugins.distribution_of(entries[0]) if entries else None


def name_conflicts() -> list[str]:
    """Return a message for each package variant that is ignored because the catalogue has its name."""
    return [
        f"{plugins.distribution_of(entry)} declares a variant {name}, which is ignored: the catalogue has that name"
        for name, entries in plugins.declarations().items()
        if name in CATALOGUE
        for entry in entries
    ]


# A declaration contains functions that cannot be pickled, so only its name is pickled.
copyreg.pickle(Variant, lambda variant: (get_variant, (variant.name,)))


__all__ = [
    "CATALOGUE",
    "STUDIED",
    "WIDER",
    "AdapterSettings",
    "FullSelection",
    "Hyperparameters",
    "SearchSpace",
    "Variant",
    "choose_variant",
    "get_variant",
    "name_conflicts",
    "provider",
    "variant_names",
]
