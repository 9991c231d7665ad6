"""Probes the layers of a model: `python -m whichlora.probing`. Read `pipeline.py` first.

Three kinds of probes: `language` (the languages that each layer decodes to), `alignment` (similarity of translations),
and `weights` (the update by training). `options` parses a request, `probed_model` finds the model, `partial_results`
stores measurements so that a probe can resume, `bootstrap` computes intervals, and `results` and `figures` present
them.
"""

from whichlora.probing.command import main

__all__ = ["main"]
