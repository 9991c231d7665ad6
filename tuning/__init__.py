"""Tuning: Optuna studies over runs of kind `trial`, resumed across machines, with equal budgets for every variant."""
