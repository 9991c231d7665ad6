"""Runs the command `probe`: `python -m whichlora.probing`."""

import sys

from whichlora.probing import main

sys.exit(main())
