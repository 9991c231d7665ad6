"""Runs the command: `python -m whichlora.data_check`."""

from whichlora.command_line import exit_with
from whichlora.data_check.command import main

exit_with(main)
