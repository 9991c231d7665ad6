"""Tasks and items: mixtures, tokenisation, windows over long contexts, and batches."""
