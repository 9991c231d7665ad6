"""The command `archive`: packs and unpacks results, and adapts them to a folder that was moved or copied."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whichlora.announcements import announced
from whichlora.archive.packing import TRACKING, pack
from whichlora.archive.relocation import relocate
from whichlora.archive.unpacking import unpack
from whichlora.command_line import BOOLEANS, FILE, FOLDER, Command, Group, parse_boolean
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, check_text, parse_number, printable
from whichlora.tracking.sqlite import database_file

COMMAND = Group(
    "archive",
    "Pack results into one file, unpack them elsewhere, or adapt them to a moved folder.",
    (
        Command(
            "pack",
            "Write the runs of a SQLite tracking database, their artifacts, and the studies beside it to the file "
            "ARCHIVE (.tar.xz, .tar.gz or .tar).\n\nThe database is that of MLFLOW_TRACKING_URI, by default "
            "mlflow.db in the current folder.",
            {
                "adapters": (
                    "false",
                    "Whether to include the trained adapters, which are large, and the models' examples of an input: "
                    "true or false.",
                )
            },
            positional={"archive": FILE},
            choices={"adapters": BOOLEANS},
            examples=("whichlora archive pack study.tar.xz",),
        ),
        Command(
            "unpack",
            "Unpack the file ARCHIVE into a folder in which mlflow ui, analyze and unfinished experiments find the "
            "results.",
            {
                "folder": (None, "Folder to unpack into, new or empty."),
                "limit": ("20", "Largest size of the unpacked files together, in GiB."),
            },
            positional={"archive": FILE},
            choices={"folder": FOLDER},
            examples=("whichlora archive unpack study.tar.xz --folder study",),
        ),
        Command(
            "relocate",
            "Point a SQLite tracking database at the artifacts beside it, after its folder was moved or copied.\n\n"
            "The database is that of MLFLOW_TRACKING_URI, by default mlflow.db in the current folder. Locations of "
            "artifacts in it are absolute, so that a moved database stores artifacts in its former folder.",
            {"force": ("false", "Whether to go ahead although runs are marked as in progress: true or false.")},
            choices={"force": BOOLEANS},
            examples=("whichlora archive relocate",),
        ),
    ),
)


_DOING = {
    "pack": "Packing the results.",
    "unpack": "Unpacking the archive.",
    "relocate": "Changing the locations of artifacts.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, unpack or relocate. Return the exit status: 2 for bad options."""
    action, values = COMMAND.read(arguments)
    return guarded(lambda: _archive(action, values), values)


def _archive(action: str, values: Mapping[str, Any]) -> int:
    with announced(_DOING[action], logged=True):
        if action == "unpack":
            limit = parse_number("limit", values["limit"], above=0, high=10**6, unit=" of GiB")
            folder = Path(check_text("folder", values["folder"]))
            text = unpack(Path(values["archive"]), folder, limit=limit)
        elif action == "pack":
            adapters = parse_boolean("adapters", values["adapters"])
            text = pack(Path(values["archive"]), database=_database(), adapters=adapters)
        else:
            text = relocate(_database(), force=parse_boolean("force", values["force"]))
    print(printable(text))
    return 0


def _database() -> Path:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{TRACKING}"
    file = database_file(uri)
    if file is None:
        raise OptionError("MLFLOW_TRACKING_URI", uri, "must be sqlite:///...; results on a server are elsewhere")
    return file
