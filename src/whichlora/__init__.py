"""Which adapter to fine-tune with, for a model, its languages and a budget, and whether the difference is real."""

__version__ = "0.1.0"
