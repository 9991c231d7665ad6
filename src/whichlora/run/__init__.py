"""Carries out one run: trains an adapter, scores it and logs the results (`python -m whichlora.run`).

`command` parses the options, and `pipeline` carries out the plan. It uses `reuse` (adapters of finished runs),
`base_scores` (the base model's scores), `set_metrics` (from scores to metrics), `forgetting` (cross-entropy of general
text), `costs` (bytes, price, inference), `reload_check` (of the saved adapter), `companions` (model card and tokenizer
beside it) and `provenance` (spec, package versions and datasets). `summary` formats the result for the terminal,
`description` for the run's page in MLflow; `seed_summary` summarises runs over seeds, and `metric_guide` describes
experiments.
"""
