"""The command `studies`: lists the studies or stops one.

python -m tuning.study status
python -m tuning.study stop NAME
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from whichlora.announcements import announced
from whichlora.command_line import Command, Group, exit_with
from whichlora.config.cli import guarded
from whichlora.errors import OptionError, printable

COMMAND = Group(
    "studies",
    "List studies of tune, or stop one.",
    (
        Command(
            "status",
            "List the studies.\n\nShows trials by state, the best value, the last heartbeat and the command to resume.",
            {},
        ),
        Command(
            "stop",
            "End the study NAME after its running trials.\n\nThe command that opened it resumes it.",
            {},
            positional={"name": ()},
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """List studies or stop one. Return the exit status: 2 for bad options."""
    action, values = COMMAND.read(arguments)
    return guarded(lambda: _study(action, values), values)


def _study(action: str, values: Mapping[str, Any]) -> int:
    # Optuna and MLflow take seconds to import, so options are checked first.
    with announced("Loading packages."):
        from tuning.study_status import NO_STUDIES, connect, exists, status, stop

    if action == "stop":
        if not exists():
            raise OptionError("study", values["name"], NO_STUDIES)
        stop(connect(), values["name"])
        print(f"{values['name']} will end after its running trials.")
    else:
        lines = status(connect()).splitlines() if exists() else ["There are no studies."]
        print("\n".join(map(printable, lines)))
    return 0


if __name__ == "__main__":
    exit_with(main)
