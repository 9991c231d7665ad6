"""Runs the command: `python -m whichlora.experiment`."""

from whichlora.command_line import exit_with
from whichlora.experiment.command import main

exit_with(main)
