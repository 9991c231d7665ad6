"""Lists the studies and stops one: the command `studies`.

python -m tuning.study status
python -m tuning.study stop NAME
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from whichlora.errors import OptionError


def main(arguments: Sequence[str] | None = None) -> int:
    """List or stop studies. Returns the exit status: 2 for bad options."""
    parser = argparse.ArgumentParser(prog="python -m tuning.study", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("status", help="list the studies")
    commands.add_parser("stop", help="end a study after its running trials").add_argument("study")
    given = parser.parse_args(arguments)

    # Optuna and MLflow take seconds to import, so bad options are refused first.
    from tuning.study_status import connect, status, stop

    database = connect()
    try:
        if given.command == "stop":
            stop(database, given.study)
            print(f"{given.study} ends after its running trials.")
        else:
            print(status(database))
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
