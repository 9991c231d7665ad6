"""Packs results into one file, unpacks them elsewhere, and adapts them to a folder that was moved or copied.

python -m whichlora.archive pack study.tar.xz
python -m whichlora.archive unpack study.tar.xz --folder study
python -m whichlora.archive relocate

A SQLite tracking database refers to the artifacts of its runs by absolute paths. They are relative in an archive and
become absolute again on unpacking, so `mlflow ui`, `analyze` and unfinished experiments or studies work there.

An archive contains the two databases and the artifacts beside them, and nothing else is packed or unpacked: neither
files of other kinds, which the next command in the folder might run, nor what links or locations outside lead to.
"""

from whichlora.archive.command import COMMAND, main

__all__ = ["COMMAND", "main"]
