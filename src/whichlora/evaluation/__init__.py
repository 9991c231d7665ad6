"""Scores a model on items: likelihood, generation, and similarity of translations."""
