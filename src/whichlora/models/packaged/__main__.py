"""Creates the folder of a packaged model and prints its path: `python -m whichlora.models.packaged [NAME]`."""

from __future__ import annotations

import argparse
import sys

from whichlora.models.packaged import (
    CATALOGUE,
    DEFAULT,
    PackagedModelError,
    TermsNotAcceptedError,
    packaged_model_path,
)


def main() -> int:
    """Create the folder. Return the exit status: 2 for bad arguments and terms that were not accepted, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m whichlora.models.packaged", description="Create the folder of a packaged model; print its path."
    )
    parser.add_argument("name", nargs="?", default=DEFAULT, choices=list(CATALOGUE), help=f"default: {DEFAULT}")
    name = parser.parse_args().name
    try:
        print(packaged_model_path(name))
    except TermsNotAcceptedError as error:
        print(f"error: {name} {error}", file=sys.stderr)
        return 2
    except PackagedModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
