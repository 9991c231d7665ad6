"""MLflow: the client, runs found or created by fingerprint, and telemetry."""
