"""Runs the command: `python -m whichlora.archive`."""

from whichlora.archive.command import main
from whichlora.command_line import exit_with

exit_with(main)
