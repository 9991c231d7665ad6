"""Searches hyperparameters with equal budgets: machines share Optuna studies, whose trials are MLflow runs."""
