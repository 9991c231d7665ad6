"""Trains one adapter and keeps its best checkpoint.

`fit` trains a plan and saves the adapter; it calls `trainer`, which uses the Trainer of transformers with `callbacks`,
`checkpoints`, `objectives` (losses) and `micro_batches` (gradient accumulation). `adapter` attaches, saves and loads
adapters, `verification` checks that they trained, `base_cache` keeps the base model in memory between runs, and
`multi_adapter` trains several runs in one pass.
"""
