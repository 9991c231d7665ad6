"""The command `runs`, which lists the runs of a tracking database: `whichlora runs`, `python -m whichlora.run_table`.

`command` parses the options, `listing` searches the database and describes each run, and `layout` makes the table.
"""

from whichlora.run_table.command import COMMAND, main

__all__ = ["COMMAND", "main"]
