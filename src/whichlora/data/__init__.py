"""Loads datasets and turns their items into batches.

`tasks/` loads items and defines their prompts and metrics; `mixture` draws the items of a run. `encoding` tokenises
items, with `windows` for contexts that are too long for one prompt, and `batching` groups them into batches.
`general_text/` has texts that are not trained on, and `detectors` tells the language of a text.
`word_pooling` specifies which hidden states represent a word in runs of `align-words`.
"""
