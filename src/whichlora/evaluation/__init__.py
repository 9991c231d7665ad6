"""Scores a model on items.

`scores` computes predictions and metrics by one of the methods in `scoring`: label probabilities (`likelihood`),
generated answers (`generation`), or the similarity of words and translations (`word_states`, `word_alignment`,
`translation_similarity`). `inference` runs the forward passes in batches.
"""
