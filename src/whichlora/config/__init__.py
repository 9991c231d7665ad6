"""Resolves the options of a run into a plan.

`options` parses the options of the command `run`, and `resolve` turns them into a `plan`: the run spec with its
fingerprints (`spec`), and the variant, task, model and items needed to carry it out. `resolve` uses `hyperparameters`
(arms, linear layers, rank), `layers` (decoder blocks), `compatibility`, `retention`, `alignment` and `word_pairs`
(checks and defaults of single options). `cli` has what several commands share.
"""
