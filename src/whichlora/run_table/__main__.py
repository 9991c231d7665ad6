"""Runs the command: `python -m whichlora.run_table`."""

from whichlora.command_line import exit_with
from whichlora.run_table.command import main

exit_with(main)
