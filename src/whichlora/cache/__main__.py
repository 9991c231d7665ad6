"""Runs the command: `python -m whichlora.cache`."""

from whichlora.cache.command import main
from whichlora.command_line import exit_with

exit_with(main)
