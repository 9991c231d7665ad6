"""Finds the base model that a saved model refers to."""

from __future__ import annotations

import shlex
from pathlib import Path

from whichlora.caller import given_path
from whichlora.errors import OptionError, is_file, is_folder
from whichlora.models.loading import ModelSource, locate, read_config
from whichlora.models.packaged import CATALOGUE
from whichlora.serving.saved import SavedBase


def find_base(reference: SavedBase, given: str | None, *, any_base: bool = False) -> ModelSource:
    """Return the base model: the given one, a packaged one, that of the hub, or the folder or file where it was.

    Args:
        given: folder, hub id or packaged name of the model to use; None for that of the reference.
        any_base: whether the given model may be another one than that of the reference.

    Raises:
        OptionError: it is not found, or another one; the message says what to do.
    """
    if given is not None:
        source = locate(given)
        if reference.revision is not None and source.revision is None and not any_base:
            allowed = (
                f"cannot be compared with {reference.digest} of the hub; leave out base and {_download(reference)}"
            )
            raise OptionError("base", given, allowed)
        if source.digest != reference.digest and not any_base:
            allowed = f"is another model than {reference.name}, on which the adapter was trained"
            raise OptionError(
                "base",
                given,
                f"{allowed} (its digest is {_short(source.digest)}, and that was {_short(reference.digest)})",
            )
        return source
    if reference.revision is not None:
        return _on_hub(reference, reference.revision)
    if reference.name in CATALOGUE:
        source = locate(reference.name)
        if source.digest != reference.digest:
            raise OptionError(
                "base", reference.name, "is another model in this version of whichlora; use that of the run"
            )
        return source
    return _in_folder(reference)


def _on_hub(reference: SavedBase, commit: str) -> ModelSource:
    place = f"{reference.name}@{commit}"
    if reference.digest != place:
        raise OptionError("base", place, f"is not the model with the digest {reference.digest}: the file was changed")
    if is_folder(Path(reference.name)):  # transformers prefers a folder
        raise OptionError("base", place, "is a model of the hub, but there is a folder of that name here; rename it")
    source = ModelSource(name=reference.name, name_or_path=reference.name, revision=commit, digest=place)
    try:
        read_config(source)
    except OptionError as error:
        raise OptionError("base", place, f"is not found here: {_download(reference)}") from error
    return source


def _download(reference: SavedBase) -> str:
    command = f"hf download {shlex.quote(reference.name)} --revision {reference.revision}"
    return f"download it (`{command}`), or set HF_HOME to a cache with it"


def _in_folder(reference: SavedBase) -> ModelSource:
    assert reference.folder is not None
    folder = Path(reference.folder)
    advice = f"set base to a folder with the model of digest {_short(reference.digest)}, on which it was trained"
    if not is_folder(folder) and not is_file(folder):
        raise OptionError("base", folder, f"is not found here: {advice}")
    source = locate(str(given_path(str(folder))))
    if source.digest != reference.digest:
        raise OptionError("base", folder, f"has another model now: {advice}")
    return source


def _short(digest: str) -> str:
    return digest if "@" in digest else digest[:12]
