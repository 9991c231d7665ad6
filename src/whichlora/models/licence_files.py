"""Decides from a base model which files of its licence must lie beside everything that is made from it.

This is the one place for that: adapters and models of runs and trials, reused adapters, exports and logged models.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from whichlora.errors import in_a_line, is_file
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.folders.verified import sha256
from whichlora.models.gguf import files as gguf_files
from whichlora.models.notices import NOTICE, SENTENCES, Change, is_document, notice
from whichlora.models.packaged import CATALOGUE, packaged_model_folder, terms
from whichlora.models.sources import ModelSource

_CARD = "README.md"
_CARD_SECONDS = 5
"""Longest wait for the first answer of the hub, which is asked for a model's card."""
_LARGEST = 2**20
"""Size in bytes above which a file is no text of a licence."""


@dataclass(frozen=True, kw_only=True)
class LicenceFiles:
    """The licence of a base model, and the files that are passed on with what is made from it.

    Attributes:
        licence: identifier of the licence, as cards on the hub name it; None if it is not known.
        documents: licences, notices and terms of use that came with the model.
    """

    licence: str | None
    documents: tuple[Path, ...] = ()


def licence_files(source: ModelSource) -> LicenceFiles:
    """Return the licence of a base model and its documents.

    Of a GGUF file, documents in the same folder count only if they state terms that demand a notice, since others may
    be those of a project that merely keeps the file there.
    """
    import platformdirs

    folder = Path(source.name_or_path).absolute()
    if source.name in CATALOGUE:
        model = CATALOGUE[source.name]
        documents = tuple(path for path in documents_in(folder) if path.name in model.documents)
        return LicenceFiles(licence=model.licence, documents=documents)
    if source.revision is not None:
        licence, documents = _licence_on_hub(source.name_or_path, source.revision), ()
    elif source.gguf is not None:
        documents = documents_in(Path(source.gguf).parent)
        stated = _stated_in(documents)
        documents = documents if stated in SENTENCES else ()
        licence = stated if documents else gguf_files.licence_of(folder)
    else:
        documents = documents_in(folder)
        stated, on_card = _stated_in(documents), licence_of_card(folder / _CARD)
        licence = stated if stated in SENTENCES else on_card or stated
    if licence in SENTENCES and not any("terms" in path.name.lower() for path in documents):
        documents = (*documents, *_terms_of(licence, str(platformdirs.user_cache_path())))
    return LicenceFiles(licence=licence, documents=documents)


def write_licence_files(folder: Path, files: LicenceFiles, origin: str, change: Change, note: str = "") -> None:
    """Copy the documents of a base model to a folder with what was made from it, and write the notice.

    The notice of a licence that demands one is followed by the one that came with the model.

    Args:
        origin, change, note: see `notices.notice`.
    """
    copy_documents(files.documents, folder)
    text = notice(files.licence, origin, change, note)
    if text is None:
        return
    came = next((path for path in files.documents if path.name == NOTICE), None)
    earlier = "" if came is None else came.read_text(encoding="utf-8", errors="replace")
    earlier = earlier and f"\nThe base model came with this notice:\n\n{earlier}"
    (folder / NOTICE).write_text(text + earlier, encoding="utf-8")


def documents_in(folder: Path) -> tuple[Path, ...]:
    """Return the licences, notices and terms of use in a folder."""
    try:
        names = sorted(path for path in folder.iterdir() if is_document(path.name))
        return tuple(path for path in names if is_file(path) and path.stat().st_size <= _LARGEST)
    except OSError:
        return ()


def copy_documents(documents: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder, in the place of those of the same names."""
    for path in documents:
        shutil.copyfile(path, folder / path.name)


def licence_of_card(card: Path) -> str | None:
    """Return the licence that a card states; None if there is no card, or none with a licence."""
    from huggingface_hub import metadata_load

    try:
        licence = (metadata_load(card) or {}).get("license")
    except Exception:  # there is no card, or it is damaged: cards are written by hand
        return None
    return licence if isinstance(licence, str) and licence.isprintable() else None


def _stated_in(documents: Iterable[Path]) -> str | None:
    """Return the licence whose notice is among documents, or else the one whose text a packaged model has too."""
    known = {model.files[name]: model.licence for model in CATALOGUE.values() for name in model.documents}
    found = None
    for path in documents:
        text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
        licence = next((name for name, sentence in SENTENCES.items() if sentence in text), known.get(sha256(path)))
        if licence in SENTENCES:
            return licence
        found = found or licence
    return found


@lru_cache(maxsize=4)
def _licence_on_hub(name: str, revision: str) -> str | None:
    from huggingface_hub import hf_hub_download

    try:
        return licence_of_card(Path(hf_hub_download(name, _CARD, revision=revision, etag_timeout=_CARD_SECONDS)))
    except Exception:  # there is no card, or no connection: the libraries raise many types
        return None


@lru_cache(maxsize=4)
def _terms_of(licence: str, cache: str) -> tuple[Path, ...]:
    """Return the text of a licence's terms of use, downloaded if it is not on this machine; empty if it cannot be.

    Args:
        cache: the user's cache, which is part of the key only: a download that failed is not repeated.
    """
    model = next((model for model in CATALOGUE.values() if model.licence == licence and model.terms), None)
    if model is None or model.terms is None:
        return ()
    try:
        return (terms.text_file(model.terms, packaged_model_folder(model.name), is_quick=True),)
    except NotCreatedError as error:
        advice = f"get them from {model.terms.address} before you pass it on"
        print(
            f"warning: no copy of the {model.terms.title} can be put beside what is made from this model; {advice} "
            f"({in_a_line(error)})",
            file=sys.stderr,
        )
        return ()
