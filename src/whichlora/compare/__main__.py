"""Runs the command: `python -m whichlora.compare`, the same as `whichlora compare`."""

import sys

from whichlora.__main__ import main
from whichlora.command_line import exit_with

exit_with(lambda: main(["compare", *sys.argv[1:]]))
