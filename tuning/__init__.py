"""Hyperparameter search: Optuna studies over runs of kind `trial`, shared by machines, with equal budgets."""
