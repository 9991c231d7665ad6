"""The alignment probe: similarity of the hidden states of translations at each layer.

`probe` measures it, and `cka` compares the states of two models.
"""
