"""The language probe: the languages of the tokens that each layer decodes to.

`probe` measures them; `positions` selects the tokens of an item, `logit_lens` decodes the states at each layer,
`classes` detects languages, and `agreement` compares the two detectors.
"""
