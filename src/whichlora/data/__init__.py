"""Datasets, from files to batches.

`tasks/` loads items and defines their prompts and metrics; `mixture` draws the items of a run. `encoding` tokenises
items, with `windows` for contexts that exceed a prompt, and `batching` groups them into batches. `word_pooling`
specifies which hidden states represent a word in word-alignment runs.
"""
