"""Uploads a folder to a repository on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from whichlora.errors import OptionError, first_line, printable
from whichlora.hub_access import hub_problem
from whichlora.text_tables import format_size


def check_repository(name: str) -> None:
    """Check the name of a repository.

    Raises:
        OptionError: it cannot be one.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
        valid = name.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise OptionError(
            "push_to", name, "must be organisation/name, of letters, digits, dots, hyphens and underscores, or none"
        )


def files_of(folder: Path, repository: str, *, uploaded: bool) -> str:
    """Return a list of the files of a folder with their sizes, for users."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = [(printable(path.relative_to(folder).as_posix()), path.stat().st_size) for path in files]
    width = max(len(name) for name, _ in sizes)
    verb = "Uploading" if uploaded else "Not uploaded (dry_run=true)"
    lines = [f"{verb} to {repository}: {len(sizes)} files, {format_size(sum(size for _, size in sizes))}"]
    return "\n".join([*lines, *(f"  {name:{width}}  {format_size(size):>9}" for name, size in sizes)])


def push(folder: Path, repository: str) -> str:
    """Upload a folder, in one commit, and return a summary for users. A repository that does not exist is created.

    Raises:
        OptionError: the hub cannot be reached, or refuses; the folder remains.
    """
    problem = hub_problem()
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, exist_ok=True, private=True)
        commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload by whichlora export")
    except Exception as error:  # the library raises many types of errors of connections and of the hub
        reason = problem or first_line(error)
        allowed = f"cannot be uploaded ({reason}); {folder} is complete: `hf upload {repository} {folder}`"
        raise OptionError("push_to", repository, allowed) from error
    return printable(f"Uploaded: {commit.commit_url}")
