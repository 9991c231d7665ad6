"""Turn the runs of an MLflow server into a report: tables, tests, plots and plain sentences. Needs no torch, no GPU."""
