"""Compares LoRA variants in multilingual fine-tuning.

The commands lie in `run` (one adapter), `experiment` (a grid of runs), `probing`, `variants`, `archive` and `database`.
They use `config` (options to plan), `data`, `models`, `variants` (the adapter methods), `training`, `evaluation`,
`serving` (predictions with the model of a run), `tracking` (MLflow), `scheduling` (workers and queues) and `parallel`
(ranks, locks, runs in lockstep). `testing` holds test cases for tasks and variants of other packages.
"""

__version__ = "0.1.0"
