"""Access to MLflow: `client` connects, `runs` finds, creates and logs runs, and `telemetry` measures resource use.

`sqlite` locates and locks SQLite tracking databases without importing MLflow.
"""
