"""Access to MLflow: `client` connects, `runs` finds, creates and logs runs, and `telemetry` measures resource use, by
MLflow's `system_metrics` and by `monitors` of our own.

`sqlite` locates and locks SQLite tracking databases without importing MLflow.
"""
