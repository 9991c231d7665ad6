"""Locates the base model: a packaged one, a local folder or GGUF file, or one of the hub."""

from __future__ import annotations

from dataclasses import dataclass

from whichlora.caller import given_path
from whichlora.errors import OptionError, is_file, is_folder
from whichlora.models import checks, in_use
from whichlora.models.folders.digests import folder_digest
from whichlora.models.gguf import files as gguf_files
from whichlora.models.hub import find_commit
from whichlora.models.packaged import CATALOGUE, PackagedModelError, TermsNotAcceptedError, packaged_model_path


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Location and identity of a base model.

    Attributes:
        name: the value of the option `model`.
        name_or_path: folder or hub id, for `from_pretrained`.
        revision: commit on the hub; None for a folder.
        digest: SHA-256 of a folder's content, or hub id and commit.
        gguf: the GGUF file of which the folder is a conversion; None for other models.
    """

    name: str
    name_or_path: str
    revision: str | None
    digest: str
    gguf: str | None = None


def locate(name: str) -> ModelSource:
    """Find the model `name` without loading its weights.

    Raises:
        OptionError: `name` is no packaged model, no folder or GGUF file with a model, and not on the hub or in its
            cache; or the terms of a packaged model were not accepted.
    """
    if name in CATALOGUE:
        try:
            path = packaged_model_path(name)
        except (PackagedModelError, TermsNotAcceptedError) as error:
            raise OptionError("model", name, str(error)) from error
        in_use.mark(name)
        return ModelSource(name=name, name_or_path=str(path), revision=None, digest=CATALOGUE[name].digest)
    place = given_path(name)
    if is_folder(place):
        checks.check_files(name, place)
        return ModelSource(name=name, name_or_path=str(place), revision=None, digest=folder_digest(place))
    if place.suffix.lower() == gguf_files.SUFFIX and not is_file(place):
        raise OptionError("model", name, "there is no such GGUF file")
    if is_file(place):
        if place.suffix.lower() != gguf_files.SUFFIX:
            raise OptionError("model", name, "is a file, but must be a folder with a saved model, or a GGUF file")
        converted = gguf_files.converted(name, place)
        in_use.mark(gguf_files.mark_of(converted.folder))
        return ModelSource(
            name=name,
            name_or_path=str(converted.folder),
            revision=None,
            digest=converted.digest,
            gguf=str(place.absolute()),
        )
    commit = find_commit(name)
    in_use.mark(name)
    return ModelSource(name=name, name_or_path=name, revision=commit, digest=f"{name}@{commit}")
