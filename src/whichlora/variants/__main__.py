"""Prints the catalogue of variants: `python -m whichlora.variants`."""

from whichlora.command_line import exit_with
from whichlora.variants.command import main

exit_with(main)
