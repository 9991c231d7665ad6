"""Scores a model on items.

`scores` computes predictions and metrics by one of the `scoring_methods`: label probabilities (`likelihood`), the
likelihood of each item's own choices (`choices`), generated answers (`generation`), or the similarity of words or
sentences and translations (`word_states`, `word_alignment`, `sentence_retrieval`, `translation_similarity`).
`inference` runs the forward passes in batches. `language_consistency` looks at generated answers, `cross_entropy` at
general text, and `latency` at the time of inference.
"""
