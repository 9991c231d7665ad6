"""Lists the files of a saved model in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from whichlora.errors import OptionError, is_file, is_folder

_SUFFIXES = (".json", ".safetensors", ".bin", ".model", ".txt")


def model_files(folder: Path) -> list[Path]:
    """Return the files of a saved model and its tokenizer, sorted.

    Raises:
        OptionError: the folder or a file cannot be read, or what has the name of a file is not one: reading a pipe, for
            example, would wait for ever.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise OptionError("model", folder, f"the folder cannot be read: {error.strerror}") from error
    files = [path for path in paths if path.suffix in _SUFFIXES]
    for path in paths:
        if not is_file(path) and (path in files or (path.exists() and not is_folder(path))):
            raise OptionError("model", folder, f"{path.name} in the folder is not a file")
    for path in files:
        if not os.access(path, os.R_OK):
            raise OptionError("model", folder, f"{path.name} in the folder cannot be read by this user")
    return files
