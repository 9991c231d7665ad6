"""The files of the models that whichlora logs, and what makes those of an archive safe to load and to serve.

MLflow imports the loader module that a file `MLmodel` names, puts the folder `code` beside it first on Python's path,
unpickles what other flavours have, and installs the requirements. From an archive, models are therefore accepted only
if they are loaded by the installed package, and ask for no other packages than it does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from whichlora.errors import OptionError
from whichlora.yaml_files import read_document

MLMODEL = "MLmodel"
ADAPTER = "adapter"
"""Artifact folder of a run and of its model with the trained adapter; of `full` and `molf`, with the model."""
LOADER_MODULE = "whichlora.serving.pyfunc"
PACKAGES = ("whichlora", "torch", "transformers", "peft", "accelerate", "mlflow", "bitsandbytes")
"""Packages that a model may require. That of a variant from elsewhere is not among them: install it as for training."""
_FLAVOR = "python_function"
_ENVIRONMENT = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
EXAMPLES = ("input_example.json", "serving_input_example.json")
"""Files of a model with the texts of a test item."""
_EXAMPLE = (*EXAMPLES, "dataframe", "split")
_VERSION = r"[0-9][0-9A-Za-z.!-]*"
_PINNED = re.compile(rf"(?:{'|'.join(PACKAGES)})=={_VERSION}")
_PYTHON = re.compile(rf"python={_VERSION}|(?:pip|setuptools|wheel)(?:(?:<=|==){_VERSION})?")


def problem_of(mlmodel: Path) -> str | None:
    """Return why loading or serving the model that a file `MLmodel` describes could run code; None if it could not."""
    folder = mlmodel.parent
    try:
        return (
            _problem_of_flavors(_yaml(mlmodel))
            or _problem_of_conda(_yaml(folder / _ENVIRONMENT["conda"]))
            or _problem_of_python(_yaml(folder / _ENVIRONMENT["virtualenv"]))
            or _problem_of_packages((folder / "requirements.txt").read_text(encoding="utf-8").splitlines())
        )
    except OptionError as error:
        return f"{Path(str(error.value)).name} {error.allowed}"
    except (OSError, UnicodeDecodeError):
        return "requirements.txt cannot be read"


def link_files(source: Path, target: Path) -> None:
    """Create hard links in `target` to the files below `source`, in place of files of the same names.

    Raises:
        OSError: there are no hard links between these folders.
    """
    for file in (path for path in source.rglob("*") if path.is_file()):
        link = target / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(file, link)


def models_in(folder: Path) -> Iterator[Path]:
    """Yield the files named `MLmodel` in a folder and its subfolders."""
    return folder.rglob(MLMODEL)


def _yaml(path: Path) -> Mapping[str, Any]:
    content = read_document("archive", path).content
    if not isinstance(content, dict):
        raise OptionError("archive", path, "is not a mapping")
    return content


def _problem_of_flavors(content: Mapping[str, Any]) -> str | None:
    flavors = content.get("flavors")
    if not isinstance(flavors, dict) or list(flavors) != [_FLAVOR] or not isinstance(flavors[_FLAVOR], dict):
        return f"has other flavours than {_FLAVOR}"
    known: dict[str, list[Any]] = {"loader_module": [LOADER_MODULE], "env": [_ENVIRONMENT], "config": [{"base": ""}]}
    for key, value in flavors[_FLAVOR].items():
        if key != "python_version" and value not in known.get(key, [None, False]):
            return f"has a {key} that is not of this package"
    if flavors[_FLAVOR].get("loader_module") != LOADER_MODULE:
        return f"has another loader_module than {LOADER_MODULE}"
    example = content.get("saved_input_example_info") or {}
    if not isinstance(example, dict) or not set(map(str, example.values())) <= set(_EXAMPLE):
        return "has an example in another file"
    return None


def _problem_of_conda(content: Mapping[str, Any]) -> str | None:
    dependencies = content.get("dependencies")
    if content.get("channels") != ["conda-forge"] or not set(content) <= {"name", "channels", "dependencies"}:
        return "conda.yaml has other channels than conda-forge"
    if not isinstance(dependencies, list):
        return "conda.yaml has no list of dependencies"
    pip = [entry["pip"] for entry in dependencies if isinstance(entry, dict) and list(entry) == ["pip"]]
    plain = [entry for entry in dependencies if not isinstance(entry, dict)]
    if len(pip) + len(plain) < len(dependencies) or not all(isinstance(entries, list) for entries in pip):
        return "conda.yaml has dependencies of another kind"
    if any(not _PYTHON.fullmatch(str(entry)) for entry in plain):
        return "conda.yaml requires other packages than Python"
    return _problem_of_packages([entry for entries in pip for entry in entries])


def _problem_of_python(content: Mapping[str, Any]) -> str | None:
    if not set(content) <= {"python", "build_dependencies", "dependencies"}:
        return "python_env.yaml has other keys than python and its dependencies"
    if not re.fullmatch(_VERSION, str(content.get("python"))):
        return "python_env.yaml has no version of Python"
    build = content.get("build_dependencies") or []
    if not isinstance(build, list) or any(not _PYTHON.fullmatch(str(entry)) for entry in build):
        return "python_env.yaml requires other packages"
    if content.get("dependencies") != ["-r requirements.txt"]:
        return "python_env.yaml has other dependencies than requirements.txt"
    return None


def _problem_of_packages(lines: list[Any]) -> str | None:
    other = [str(line) for line in lines if not _PINNED.fullmatch(str(line))]
    return f"requires {ascii(other[0])[:60]}" if other else None
