"""The alignment probe: similarity of the hidden states of translations, layer by layer."""
