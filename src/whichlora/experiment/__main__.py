"""Runs the command: `python -m whichlora.experiment`."""

import sys

from whichlora.experiment.command import main

sys.exit(main())
