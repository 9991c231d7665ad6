"""Runs the command `probe`: `python -m whichlora.probing`."""

from whichlora.command_line import exit_with
from whichlora.probing import main

exit_with(main)
