"""The retrieval probe: finding the answer sentences of questions among those of several languages, layer by layer.

`probe` measures it, `xquad_r` reads the data, and `precision` has the score.
"""
