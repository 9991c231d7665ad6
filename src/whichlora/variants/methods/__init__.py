"""Declarations of the catalogue's methods: one module per method or family of methods.

`references` declares full fine-tuning and the untrained base model; `optimizers` is shared by methods with two learning
rates.
"""
