"""Compares methods in rounds of seeds until it is clear which to use: `python -m whichlora.compare`.

`compare` parses the options, `pipeline` does the rounds and is the place to start reading, `methods` and `comparison`
hold what is fixed before the first seed, `studies` finds settings by tuning, `results` reads the runs seed by seed,
and `answer` says what they show.
"""
