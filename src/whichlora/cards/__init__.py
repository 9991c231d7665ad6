"""Writes what lies beside the weights of an adapter for others: a model card, and the tokenizer.

`facts` reads a run from MLflow, `rerun` writes the command that repeats it, `model_card` the card, and `companions`
puts card and tokenizer into a folder.
"""
