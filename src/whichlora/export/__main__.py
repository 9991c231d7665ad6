"""Runs the command: `python -m whichlora.export`."""

from whichlora.command_line import exit_with
from whichlora.export.command import main

exit_with(main)
