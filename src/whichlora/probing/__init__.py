"""Measurements inside a model, layer by layer: `python -m whichlora.probing`. Read `pipeline.py` first."""

from whichlora.probing.command import main

__all__ = ["main"]
