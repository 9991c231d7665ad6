"""Runs the command: `python -m whichlora.predict`."""

from whichlora.command_line import exit_with
from whichlora.predict.command import main

exit_with(main)
