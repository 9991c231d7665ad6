"""Names a base model so that others can find it: on the hub, or by the digest of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whichlora.models.licence_files import LicenceFiles, licence_files, write_licence_files
from whichlora.models.loading import ModelSource
from whichlora.models.notices import Change
from whichlora.models.packaged import CATALOGUE, DEFAULT


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
        documents: licences, notices and terms of use that are passed on.
    """

    name: str
    revision: str | None
    on_hub: bool
    licence: str | None
    is_gguf: bool = False
    note: str = ""
    documents: tuple[Path, ...] = ()


def published(source: ModelSource) -> PublishedBase:
    """Return the name, revision and licence of a base model for others."""
    folder, files = Path(source.name_or_path).absolute(), licence_files(source)
    note = ""
    revision: str | None
    if source.name in CATALOGUE:
        model = CATALOGUE[source.name]
        named = "" if source.name == DEFAULT else f" {source.name}"
        note = (
            f"Training started from a conversion of this model, the 4-bit file {model.gguf_name} of the package "
            f"{model.packages}: its weights are near those on the hub, but not equal, so scores with the latter may "
            f"differ. `python -m whichlora.models.packaged{named}` writes the conversion and prints its folder."
        )
        name, revision, on_hub = model.origin, None, True
    elif source.revision is not None:
        name, revision, on_hub = source.name_or_path, source.revision, True
    else:
        # As a revision the digest also keeps PEFT from loading another model of the same name from the hub.
        name = folder.name if source.gguf is None else Path(source.gguf).name
        revision, on_hub = f"sha256-{source.digest}", False
    return PublishedBase(
        name=name,
        revision=revision,
        on_hub=on_hub,
        licence=files.licence,
        is_gguf=source.gguf is not None,
        note=note,
        documents=files.documents,
    )


def write_notice(folder: Path, base: PublishedBase, change: Change) -> None:
    """Write what the licence of a base model demands beside what was made from it, see `licence_files`."""
    files = LicenceFiles(licence=base.licence, documents=base.documents)
    write_licence_files(folder, files, base.name, change, base.note)
