"""Names a base model so that others can find it: on the hub, or by the digest of its files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from whichlora.models.gguf.files import licence_of
from whichlora.models.loading import ModelSource
from whichlora.models.notices import NOTICE, Change, notice
from whichlora.models.packaged import CATALOGUE, DEFAULT

_CARD_SECONDS = 5
"""Longest wait for the first answer of the hub, which is asked for a model's card."""
_TERMS = "*_TERMS.*"
"""Files with terms of use beside a model, which are passed on where the licence demands it."""


@dataclass(frozen=True, kw_only=True)
class PublishedBase:
    """A base model as others find it.

    Attributes:
        name: hub id, or the name of the folder or GGUF file without its path.
        revision: commit on the hub; None for its newest; of a folder the digest of its files.
        on_hub: whether `name` is a hub id.
        licence: identifier of the licence, as cards on the hub name it; None if it is not known.
        is_gguf: whether it is a GGUF file.
        note: how this model differs from the one of that name; empty if it does not.
        terms: a file with the terms of use, to be passed on; None if there is none.
    """

    name: str
    revision: str | None
    on_hub: bool
    licence: str | None
    is_gguf: bool = False
    note: str = ""
    terms: Path | None = None


def published(source: ModelSource) -> PublishedBase:
    """Return the name, revision and licence of a base model for others."""
    folder = Path(source.name_or_path).absolute()
    if source.name in CATALOGUE:
        model = CATALOGUE[source.name]
        named = "" if source.name == DEFAULT else f" {source.name}"
        note = (
            f"Training started from a conversion of this model, the 4-bit file {model.gguf_name} of the package "
            f"{model.packages}: its weights are near those on the hub, but not equal, so scores with the latter may "
            f"differ. `python -m whichlora.models.packaged{named}` writes the conversion and prints its folder."
        )
        terms = None if model.terms is None else folder / model.terms.file
        return PublishedBase(
            name=model.origin, revision=None, on_hub=True, licence=model.licence, note=note, terms=terms
        )
    if source.revision is not None:
        licence = _licence_on_hub(source.name_or_path, source.revision)
        return PublishedBase(name=source.name_or_path, revision=source.revision, on_hub=True, licence=licence)
    # As a revision the digest also keeps PEFT from loading another model of the same name from the hub.
    revision = f"sha256-{source.digest}"
    if source.gguf is not None:
        return PublishedBase(
            name=Path(source.gguf).name, revision=revision, on_hub=False, licence=licence_of(folder), is_gguf=True
        )
    licence, terms = _licence_in(folder / "README.md"), next(iter(sorted(folder.glob(_TERMS))), None)
    return PublishedBase(name=folder.name, revision=revision, on_hub=False, licence=licence, terms=terms)


def write_notice(folder: Path, base: PublishedBase, change: Change) -> None:
    """Write the notice that the licence of a base model demands to a folder, and a copy of the terms if there is one.

    Nothing is written for other licences.
    """
    text = notice(base.licence, base.name, change, base.note)
    if text is None:
        return
    (folder / NOTICE).write_text(text, encoding="utf-8")
    if base.terms is not None and base.terms.is_file():
        shutil.copyfile(base.terms, folder / base.terms.name)


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
