"""Resolves the options of a run into a plan.

`options` defines the options of the command `run`, whose values `option_values` parses, and `resolve` turns them into a
`plan`: the run spec with its fingerprints (`spec`), and the variant, task, model and items needed to carry it out.
`resolve` uses `hyperparameters` (arms, linear layers, rank), `layers` (decoder blocks), `compatibility`, `retention`,
`forgetting`, `alignment` and `word_pairs` (checks and defaults of single options). `cli` has what several commands
share.
"""
