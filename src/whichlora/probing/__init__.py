"""Probes the layers of a model: `python -m whichlora.probing`. Read `pipeline.py` first.

Four kinds of probes: `language` (the languages that each layer decodes to), `alignment` (similarity of translations),
`retrieval` (answers found among sentences in several languages), and `weights` (the update by training). `request`
parses the `options`, `probed_model` finds the model, `averaged_states` reads its hidden states, `partial_results`
stores measurements so that a probe can resume, `bootstrap` computes intervals, and `results` and `figures` present
them.
"""

from whichlora.probing.command import main

__all__ = ["main"]
