"""Runs the command: `python -m whichlora.run`."""

from whichlora.command_line import exit_with
from whichlora.run.command import main

exit_with(main)
