"""The command `cache`: what was downloaded, converted or left unfinished, and how to remove it.

`command` parses the options, `entries` finds what this project stores, and `hub` what the Hugging Face libraries do.
"""

from whichlora.cache.command import COMMAND, main

__all__ = ["COMMAND", "main"]
