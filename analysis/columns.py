"""Column names that several modules share."""

from __future__ import annotations

CONDITIONS = (
    *("task", "difficulty", "model", "composition", "train_size", "validation_size", "test_size", "prompt_language"),
    *("chat_template", "scoring", "precision", "quantization", "source_language", "headline"),
)
"""Columns that define a setting, within which methods are compared."""
SETTINGS = (
    *("rank", "alpha", "dropout", "learning_rate", "epochs", "batch_size", "warmup", "weight_decay", "scheduler"),
    *("target_modules", "layers", "variant_options", "select_on"),
)
"""Columns of hyperparameters, in which methods differ."""
