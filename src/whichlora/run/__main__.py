"""Runs the command: `python -m whichlora.run`."""

import sys

from whichlora.run.command import main

sys.exit(main())
